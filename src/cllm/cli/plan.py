"""`cllm plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cllm.cli.plan_processes import job, lines, show, write_picture
from cllm.cli.processes import numbers
from cllm.errors import UsageError

if TYPE_CHECKING:
    from cllm.training.distributed.outlook import Line

FEW_TOKENS = 20  # a parameter (Hoffmann et al. 2022): below it a smaller model learns more in the same time


def plan(
    *,
    run: Path | None = None,
    preset: str | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set")] = None,
    processes: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    bandwidth: float = 1.25,
    latency: float = 50.0,
    per_machine: int = 1,
    local: Path | None = None,
    algorithm: Literal["ring", "tree"] = "ring",
    weak: bool = False,
    measured: Path | None = None,
    picture: Path | None = None,
    json: bool = False,
) -> int:
    """Before training: parameters, memory by part, measured speed, time to finish, the largest batch that fits.

    The speed is that of three real steps on random tokens on this machine, now; the time is that of the training steps
    alone, without evaluations and checkpoints.

    With --processes also a table of what a step would take on so many, by the α–β model of docs/scale.md: from the
    pieces of a step as they are measured here, for machines like this one and the network that --bandwidth and
    --latency describe. Nothing but this machine is measured.

    Examples:

      cllm plan --preset small --set train.steps=5000

      cllm plan --run runs/seed.toml --set train.batch=4

      cllm plan --preset small --processes 1,2,4 --per-machine 4

      cllm plan --preset seed --set train.accumulate=64 --processes 1..512 --bandwidth 12.5 --latency 20

    Parameters
    ----------
    run: Path
        A run file (TOML).
    preset: str
        nano, small, seed, medium, large or gpt2.
    set: list[str]
        One setting, as in --set train.batch=8; may be repeated.
    processes: list[str]
        Numbers of processes, as in 1,2,4 or 1..4096 (doubling).
    bandwidth: float
        Of the network between machines, one direction, in GB/s (10 Gbit/s Ethernet: 1.25).
    latency: float
        Of a message between machines, in µs.
    per_machine: int
        Processes on each machine; they share its cores and its memory.
    local: Path
        What `cllm bench link --save` wrote: the link inside a machine. Without it, the network's.
    algorithm: str
        Of the all-reduce: ring (gloo, and NCCL for large messages) or tree (NCCL's double binary tree).
    weak: bool
        Every process keeps all of train.batch × train.accumulate rows: the global batch grows with them.
    measured: Path
        Keep the measured pieces of a step in this file; if it is there, take them from it: one measurement for several
        plans, or of another machine.
    picture: Path
        Write the efficiency against the number of processes as an SVG.
    json: bool
        Print one JSON object.
    """
    import msgspec

    from cllm import config as settings
    from cllm.bench.peak import peak_flops
    from cllm.training import plan as planning

    count = numbers(processes, [])
    about = {"--picture": picture is not None, "--measured": measured is not None, "--local": local is not None,
             "--weak": weak, "--per-machine": per_machine != 1, "--algorithm": algorithm != "ring",
             "--bandwidth": bandwidth != 1.25, "--latency": latency != 50.0}  # fmt: skip
    for option, given in about.items():
        if given and not count:
            raise UsageError(f"{option}: it is about several processes: add --processes, as in --processes 1..4096")
    config = settings.load(run, preset=preset, overrides=set or ())
    needed = planning.size(config)
    memory = planning.memory_of(planning.device_of(config))
    fits = needed.total_bytes <= memory
    several: list[Line] = []
    if count and fits:
        there = job(bandwidth, latency, per_machine, local, algorithm, weak)
        several = lines(config, sorted({1, *count}), there, measured)
        speed: planning.Speed | None = several[0].speed
        several = [line for line in several if line.processes in count]
    else:
        speed = planning.measure(config) if fits else None
    t, m = config.train, config.model
    tokens_a_step = t.batch * t.accumulate * (t.sequence or m.context)
    minutes = planning.DEFAULT_MINUTES if t.steps is None and t.max_minutes is None else t.max_minutes
    steps = t.steps
    if steps is None and speed is not None and minutes is not None:
        steps = int(minutes * 60 * (1 - planning.RESERVE) / speed.seconds)
    device = planning.device_of(config).type
    peak = peak_flops(config.precision, device) if speed is not None else None
    facts: dict[str, Any] = {
        "parameters": needed.parameters,
        "bytes": needed.bytes_by_part,
        "bytes_total": needed.total_bytes,
        "machine_bytes": memory,
        "checkpoint_bytes": planning.checkpoint_bytes(config),
        "largest_batch": planning.largest_batch(config, memory),
        "flops_per_token": needed.flops_per_token,
        "seconds_a_step": speed.seconds if speed else None,
        "tokens_per_s": speed.tokens_per_s if speed else None,
        "peak_flops": peak,
        "mfu": None if speed is None or peak is None else needed.flops_per_token * speed.tokens_per_s / peak,
        "steps": steps,
        "tokens": None if steps is None else steps * tokens_a_step,
        "seconds": None if steps is None or speed is None else steps * speed.seconds,
    }
    if several:
        facts |= {"link": {"bandwidth": bandwidth, "latency": latency, "per_machine": per_machine, "weak": weak,
                           "algorithm": algorithm, "local": None if local is None else str(local)},
                  "mode": msgspec.to_builtins(config.distributed),
                  "processes": [line.to_dict() for line in several]}  # fmt: skip
        if picture is not None:
            write_picture(picture, several, config, facts["link"])
    if json:
        print(msgspec.json.encode(facts).decode())
        return 0 if fits else 1
    _print(config.preset, facts)
    if several:
        print()
        show(several, config, facts["link"])
    return 0 if fits else 1


def _print(preset: str, facts: dict[str, Any]) -> None:
    print(f"{preset}: {facts['parameters']:,} parameters, {facts['flops_per_token']:,} FLOPs a training token")
    print(f"memory       {facts['bytes_total'] / 1e6:,.1f} MB of the machine's {facts['machine_bytes'] / 1e6:,.0f} MB")
    for part, count in facts["bytes"].items():
        print(f"  {part:<18}{count / 1e6:10,.1f} MB")
    print(f"checkpoint   {facts['checkpoint_bytes'] / 1e6:,.1f} MB each")
    print(f"batch        {facts['largest_batch']} rows would fit")
    if facts["seconds_a_step"] is None:
        print("It does not fit: choose a smaller batch, sequence or model.")
        return
    print(f"speed        {facts['tokens_per_s']:,.0f} tokens/s, {facts['seconds_a_step'] * 1e3:,.0f} ms a step")
    print(f"utilisation  {facts['mfu']:.1%} of this machine's measured {facts['peak_flops'] / 1e9:,.0f} GFLOP/s")
    hours, rest = divmod(round(facts["seconds"]), 3600)
    print(f"time         {facts['steps']:,} steps, {facts['tokens']:,} tokens: {hours}:{rest // 60:02}:{rest % 60:02}")
    if facts["tokens"] < FEW_TOKENS * facts["parameters"]:
        print(
            f"note         {facts['tokens'] / facts['parameters']:.1f} tokens a parameter: below about {FEW_TOKENS} a "
            "smaller model learns more in the same time"
        )
