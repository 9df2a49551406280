"""The local web studio: server side. `cllm studio` starts it (docs/studio.md)."""
