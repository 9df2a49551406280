"""`cllm bench gpu`: the CUDA path checked and timed where there is a GPU: one command, four tables.

Checks: the repository's own tests of the kernels, with their judges and bounds, on the GPU instead of in Triton's
interpreter; and that a step as a graph has the bits of the same step op by op. Then whole steps beside the same model
in plain torch.nn, eager and compiled; each kernel beside the torch ops it replaces and beside the memory's speed; with
several GPUs, sums over them. No figure of this file has been measured yet (docs/gpu.md).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from cllm import config as settings
from cllm.bench.gpu_link import links
from cllm.bench.gpu_ops import ops
from cllm.bench.machine import gemm_peak, memory_bandwidth
from cllm.bench.measure import Table, interleave, ratio
from cllm.bench.peers import PlainGPT, adamw, peer_step, whole_step
from cllm.bench.train_step import CLIP, LR, tokens
from cllm.engine import cuda
from cllm.errors import UsageError
from cllm.model.batch import Batch
from cllm.model.layout import flops_per_token
from cllm.model.model import Model
from cllm.training.graph import Graphed, OnDevice
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step
from cllm.training.state import DTYPES, State

TESTS = ("tests/engine/test_triton_ops.py", "tests/engine/test_triton_attention.py", "tests/engine/test_triton_step.py")
GRAPH, OP_BY_OP = "cllm, a graph", "cllm, op by op"
PEERS = ("plain eager", "plain compiled", "plain compiled, graphs")
SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096), (8192, 1024, 4096))  # of a GPU's GEMM peak
SAME_STEPS = 3


def require() -> torch.device:
    """The current CUDA device. Raises UsageError where there is none, MissingExtraError without Triton."""
    if not torch.cuda.is_available():
        raise UsageError(
            f"cllm bench gpu needs an NVIDIA GPU; this PyTorch ({torch.__version__}) sees none, so nothing was measured"
        )
    if reason := cuda.why_not():
        raise UsageError(f"cllm bench gpu measures the Triton kernels: {reason}")
    return torch.device("cuda", torch.cuda.current_device())


def run(preset: str, *, batch: int, sequence: int, precision: str, rounds: int) -> list[Table]:
    """All tables; the first one, of the checks, has rows with `failed` above 0 where something is wrong."""
    device = require()
    sizes = {"train.batch": batch, "train.sequence": sequence, "precision": precision}
    config = settings.load(preset=preset, overrides=sizes)
    found = [checks(config, device), steps(config, device, rounds), ops(config, device, rounds)]
    if torch.cuda.device_count() > 1:
        found.append(links(torch.cuda.device_count(), "nccl"))
    return found


def failed(tables: list[Table]) -> int:
    """How many checks did."""
    return sum(int(row.figures.get("failed") or 0) for table in tables for row in table.rows)


def checks(config: settings.Config, device: torch.device) -> Table:
    """The tests of the kernels on this device, and graph against op by op."""
    table = Table("gpu-checks", f"correctness on {_name(device)}: against float64, within the derived bounds")
    root = Path(__file__).parents[3]
    for test in TESTS:
        if not (root / test).exists():
            table.notes.append(f"{test} is not here: the kernels' checks need the repository, not only the package.")
            continue
        table.add(test, **_tested(root, test, device))
    different = same_bits(config, device)
    table.add("a graph has the bits of its ops", passed=int(not different), failed=int(bool(different)))
    table.notes += [f"different: {', '.join(different)}"] if different else []
    return table


def _tested(root: Path, test: str, device: torch.device) -> dict[str, int]:
    """Counts of one file's tests; what failed is printed."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"CLLM_TEST_DEVICE": device.type}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", f"--junitxml={report}", test]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise UsageError(f"{' '.join(command)} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        if done.returncode:
            print(done.stdout[-20_000:], file=sys.stderr)
        counts = ElementTree.parse(report).getroot().find("testsuite")  # pytest has just written it
    assert counts is not None
    skipped, bad = (sum(int(counts.get(key, 0)) for key in keys) for keys in (("skipped",), ("failures", "errors")))
    return {"passed": int(counts.get("tests", 0)) - skipped - bad, "failed": bad, "skipped": skipped}


def same_bits(config: settings.Config, device: torch.device) -> list[str]:
    """The tensors in which a few steps as a graph differ from the same steps op by op; none, as it should be."""
    states = [State.fresh(config, device) for _ in range(2)]
    rows = [_rows(config, number) for number in range(SAME_STEPS)]
    graph = Graphed(states[0], make_step(states[0]))
    eager = OnDevice(states[1], make_step(states[1]))
    for number, batches in enumerate(rows):
        graph.launch(batches, number=number, lr=LR).result()
        eager.tokens_ABT1.copy_(torch.stack([batch.tokens_BT1 for batch in batches]))
        eager.rate.fill_(LR)
        eager.number.fill_(number)
        eager.run()
    one, two = states
    found = [name for name, view in one.model.params.items() if not torch.equal(view, two.model.params[name])]
    for key, moment in one.moments.items():
        found += [f"{key}.{name}" for name, view in moment.items() if not torch.equal(view, two.moments[key][name])]
    return found


def steps(config: settings.Config, device: torch.device, rounds: int) -> Table:
    """Whole steps: forward, backward, clipping, AdamW; tokens a second, share of the GEMM peak, memory."""
    b, t = config.train.batch, config.train.sequence or config.model.context
    table = Table(
        f"gpu-train-step-{config.preset}-b{b}-t{t}-{config.precision}",
        f"training step, {config.preset}, batch {b}, T = {t}, {config.precision}, on {_name(device)}",
    )
    table.facts |= _limits(config.precision, device)
    made: dict[str, Callable[[], object]] = {}
    memory: dict[str, float] = {}
    for name in (GRAPH, OP_BY_OP, *PEERS):
        with _allocated(device) as taken:
            made[name] = candidate(name, config, device)
            for _ in range(3):
                made[name]()
        memory[name] = taken[0]
    timings = interleave(made, rounds=rounds, warmup=3, sync=_sync(device), least_s=0.2)
    work = flops_per_token(config.model, t) * b * t
    peak = float(table.facts["gemm_gflops"] or 0.0) * 1e9
    for name, timing in timings.items():
        table.add_timing(
            name,
            timing,
            tokens_per_s=b * t / timing.median_s,
            peak_fraction=work / timing.median_s / peak,
            times_ours=ratio(timing, timings[GRAPH]).median,
            memory_mb=memory[name] / 1e6,
        )
    table.notes.append(
        "peak_fraction: of the GEMM peak, measured in the same run. memory_mb: more than before it, at most."
    )
    return table


def candidate(name: str, config: settings.Config, device: torch.device) -> Callable[[], float]:
    """One whole step on the same rows from the same weights, as a callable that returns the mean loss."""
    if name in (GRAPH, OP_BY_OP):
        state = State.fresh(config, device)
        step, batches = make_step(state), _rows(config, 0)
        if name == GRAPH:
            graph = Graphed(state, step)
            done = iter(range(1 << 60))
            return lambda: graph.launch(batches, number=next(done), lr=LR).result().mean

        def one() -> float:
            step.zero()
            for batch in batches:
                step.accumulate(batch)
            update(state, step, step.kernels, LR, gradient_norm(step, CLIP))
            return step.sums.mean

        return one
    model, rows = _plain(config, device), tokens(config).to(device)
    low = "bf16" if config.precision == "bf16" else "fp32"
    if name == "plain eager":
        return peer_step(model, rows, f"eager {low}", lr=LR, clip=CLIP)
    if name == "plain compiled":
        return peer_step(model, rows, f"compile {low}", lr=LR, clip=CLIP)

    def mean_loss(x_BT: torch.Tensor, y_BT: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=low == "bf16"):
            return model.loss_sum(x_BT, y_BT) / y_BT.numel()

    return whole_step(torch.compile(mean_loss, mode="reduce-overhead"), adamw(model, LR), rows, CLIP)


def _plain(config: settings.Config, device: torch.device) -> PlainGPT:
    m = config.model
    sizes: dict[str, Any] = {key: getattr(m, key) for key in ("layers", "width", "heads", "ff", "context", "vocab")}
    model = PlainGPT(**sizes, tied=m.tied, activation=m.activation).to(device)
    start = Model(m, DTYPES[config.precision]).initialise(config.seed)
    model.load_named({name: view.to(device) for name, view in start.params.items()})
    return model


def _rows(config: settings.Config, number: int) -> list[Batch]:
    """The micro-batches of a step; number 0: the rows that the peers have, too."""
    found = []
    for i in range(config.train.accumulate):
        rows = tokens(config)
        if number or i:
            generator = torch.Generator().manual_seed(1000 * number + i)
            rows = torch.randint(config.model.vocab, rows.shape, generator=generator)
        found.append(Batch.of(rows, first_row=i * config.train.batch))
    return found


def _limits(precision: str, device: torch.device) -> dict[str, float]:
    shapes = SHAPES if device.type == "cuda" else ((256, 256, 256),)
    memory = memory_bandwidth(device=device.type, rounds=3)
    return {
        "gemm_gflops": gemm_peak(precision, device=device.type, shapes=shapes).gflops,
        "read_gb_s": memory.read / 1e9,
        "copy_gb_s": memory.copy / 1e9,
    }


def _sync(device: torch.device) -> Callable[[], object] | None:
    return torch.cuda.synchronize if device.type == "cuda" else None


@contextmanager
def _allocated(device: torch.device) -> Iterator[list[float]]:
    """The most memory of the device that was allocated inside beyond what was before, bytes; 0 on a CPU."""
    found = [0.0]
    if device.type != "cuda":
        yield found
        return
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield found
    torch.cuda.synchronize(device)
    found[0] = float(torch.cuda.max_memory_allocated(device) - before)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
