"""`cllm info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cllm.errors import UsageError


def info(
    run: Path | None = None,
    /,
    *,
    preset: str | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set")] = None,
    settings: bool = False,
    json: bool = False,
) -> int:
    """What a model or a run is: parameters, memory by part, FLOPs per token, and the kernels a step runs on here.

    The memory is what training allocates, counted by the allocation itself.

    Examples:

      cllm info --preset seed

      cllm info runs/book --json

    Parameters
    ----------
    run: Path
        A run directory or a run file (TOML).
    preset: str
        nano, small, seed, medium, large or gpt2.
    set: list[str]
        One setting, as in --set train.batch=8; may be repeated.
    settings: bool
        List every setting instead, with its value and a sentence on it, as a run file.
    json: bool
        Print one JSON object.
    """
    from cllm import config as configuration

    if run is not None and not run.exists():
        raise UsageError(f"{run}: no such run directory or run file (TOML)")
    file = run / "run.toml" if run is not None and run.is_dir() else run
    if run is not None and run.is_dir():
        from cllm.training.run import read_run_file

        read_run_file(run)
    config = configuration.load(file, preset=preset, overrides=set or ())
    if settings:
        if json:
            import msgspec

            print(msgspec.json.encode(config).decode())
        else:
            print(_settings(config), end="")
        return 0
    from cllm.training.plan import size

    measured = size(config)
    facts: dict[str, Any] = {
        "preset": config.preset,
        "model": configuration.to_dict(config)["model"],
        "batch": config.train.batch,
        "sequence": config.train.sequence,
        "precision": config.precision,
        **_kernels(config),
        "parameters": measured.parameters,
        "bytes": measured.bytes_by_part,
        "bytes_total": measured.total_bytes,
        "flops_per_token": measured.flops_per_token,
    }
    if run is not None and run.is_dir():
        facts |= _of_run(run)
    if json:
        import msgspec

        print(msgspec.json.encode(facts).decode())
        return 0
    m = config.model
    print(f"{config.preset}: {m.layers} layers, width {m.width}, {m.heads} heads, feed-forward {m.ff}, ", end="")
    print(f"vocabulary {m.vocab}, context {m.context}")
    if chosen := configuration.lattice_options(m):
        print("lattice options     " + ", ".join(f"{key} = {value}" for key, value in chosen.items()))
    print(f"parameters          {measured.parameters:,}")
    print(f"FLOPs per token     {measured.flops_per_token:,} (forward and backward, T = {config.train.sequence})")
    print(f"memory of training  {_mb(measured.total_bytes)}  (batch {config.train.batch}, {config.precision})")
    for part, count in measured.bytes_by_part.items():
        print(f"  {part:<18}{_mb(count)}")
    print(f"{'device':<20}{facts['device']}")
    print(f"{'kernels':<20}{facts['kernels']}{f' ({why})' if (why := facts['why_not_native']) else ''}")
    if "why_not_graph" in facts:
        print(f"{'a step is':<20}{facts['why_not_graph'] or 'one CUDA graph'}")
    for key in ("checkpoint", "step", "tokens"):
        if key in facts:
            print(f"{key:<20}{facts[key]}")
    return 0


def _settings(config: Any) -> str:
    """A run file with every key there is; those without a value as comments, `# steps = …`."""
    import msgspec
    import tomli_w

    from cllm.cli.sentences import sentences

    said = sentences()

    def lines(values: dict[str, Any], section: str) -> str:
        text, tables = "", ""
        for key, value in values.items():
            if isinstance(value, dict):  # its own table, behind the section's keys
                tables += "\n" + tomli_w.dumps({section: {key: value}} if section else {key: value})
                continue
            sentence = said.get(f"{section}.{key}" if section else key)
            text += f"# {sentence}\n" if sentence else ""
            text += f"# {key} = …\n" if value is None else tomli_w.dumps({key: value})
        return text + tables

    values: dict[str, Any] = msgspec.to_builtins(config)
    text = lines({key: value for key, value in values.items() if not isinstance(value, dict)}, "")
    for section, inner in values.items():
        if isinstance(inner, dict):
            text += f"\n[{section}]\n{lines(inner, section)}"
    return text


def _kernels(config: Any) -> dict[str, str]:
    """The device and the kernels of a step of this configuration here, why they are not the fastest ones there are, and
    on CUDA why its steps are not graphs."""
    import torch

    from cllm import native
    from cllm.engine import cuda
    from cllm.engine.dispatch import select
    from cllm.training import graph
    from cllm.training.plan import device_of
    from cllm.training.state import DTYPES

    device = device_of(config)
    gpu = device.type == "cuda"
    found = {
        "device": f"cuda, {torch.cuda.get_device_name(device)}" if gpu else device.type,
        "kernels": select(DTYPES[config.precision], config.model.activation, device).name,
        "why_not_native": cuda.why_not() if gpu else native.why_not("engine", "engine"),
    }
    if gpu:
        found["why_not_graph"] = graph.why_not(config)
    return found


def _of_run(run: Path) -> dict[str, Any]:
    from cllm.errors import RunError
    from cllm.training import checkpoint

    try:
        found = checkpoint.load(run, with_state=False)
    except RunError as error:
        return {"checkpoint": f"none ({error})"}
    return {"checkpoint": found.name, "step": found.step, "tokens": found.meta["tokens"]}


def _mb(count: int) -> str:
    return f"{count / 1e6:10.1f} MB"
