"""`python -m cllm` is the command `cllm`."""

from cllm.cli import main

if __name__ == "__main__":
    main()
