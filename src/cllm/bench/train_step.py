"""`cllm bench train-step`: our training step beside the same model in plain torch.nn, interleaved in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cllm import config as settings
from cllm.bench.elsewhere import Elsewhere, tcmalloc
from cllm.bench.machine import limits, peak_gflops, peak_rss_bytes, rss_bytes
from cllm.bench.measure import Table, interleave, ratio
from cllm.bench.peers import VARIANTS, known_variant, peer_steps
from cllm.bench.peers_installed import COMPILED, PACKAGES, package_step
from cllm.model.batch import Batch
from cllm.model.layout import flops_per_token
from cllm.model.model import Model
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step
from cllm.training.state import DTYPES, State

OURS = "cllm fp32"
OWN = ("cllm bf16", OURS)
"""Our step in each precision; kernels as `cllm info` names them."""
TUNED = "compile bf16"
"""The fastest peer, which also runs with tcmalloc preloaded where that is installed."""
LR, CLIP = 1e-4, 1.0


def tokens(config: settings.Config) -> torch.Tensor:
    """The same seeded random rows for every candidate, int64 [B, T+1]."""
    generator = torch.Generator().manual_seed(0)
    shape = (config.train.batch, (config.train.sequence or config.model.context) + 1)
    return torch.randint(config.model.vocab, shape, generator=generator)


def our_step(config: settings.Config) -> tuple[State, Callable[[], float]]:
    """One whole step (forward, backward, global-norm clip, AdamW) as a callable that returns the mean loss."""
    state = State.fresh(config)
    step = make_step(state)
    batch = Batch.of(tokens(config))

    def one() -> float:
        step.zero()
        loss = step.accumulate(batch).mean
        update(state, step, step.kernels, LR, gradient_norm(step, CLIP))
        return loss

    return state, one


def candidates(config: settings.Config, names: Sequence[str]) -> dict[str, Callable[[], float]]:
    """Our steps and the peers asked for, all from the same weights on the same rows; nothing else stays in memory."""
    ours = {
        name: our_step(settings.replace(config, {"precision": name.split()[1]}))[1] for name in OWN if name in names
    }
    installed = {
        name: package_step(name, config.model, tokens(config), lr=LR, clip=CLIP) for name in PACKAGES if name in names
    }
    peers = _peers(config, tuple(name for name in names if name in VARIANTS))
    return {name: step for name in names for found in (ours, peers, installed) if (step := found.get(name))}


def preloaded(config: settings.Config, name: str, library: Path) -> Elsewhere:
    """A candidate in a process of its own, under another allocator, on as many threads."""
    code = (
        "import json, torch; from cllm.bench.train_step import candidates; from cllm import config as settings; "
        "told, name, threads = map(json.loads, sys.argv[1:]); torch.set_num_threads(threads); "
        "step = candidates(settings.load(base=told), [name])[name]"
    )
    return Elsewhere(code, [settings.to_dict(config), name, torch.get_num_threads()], preload=library)


def _peers(config: settings.Config, names: tuple[str, ...]) -> dict[str, Callable[[], float]]:
    if not names:
        return {}
    m = config.model
    sizes: dict[str, Any] = {key: getattr(m, key) for key in ("layers", "width", "heads", "ff", "context", "vocab")}
    sizes |= {"tied": m.tied, "activation": m.activation}
    weights = dict(Model(m, DTYPES[config.precision]).initialise(config.seed).params.items())
    return peer_steps(sizes, tokens(config), names, weights=weights, lr=LR, clip=CLIP)


def run(
    preset: str,
    *,
    batch: int,
    sequence: int,
    rounds: int,
    peers: Sequence[str] = VARIANTS,
    rss: bool = True,
    vocab: int | None = None,
) -> Table:
    """Time the candidates in turn; the peak memory of each is taken in a process of its own.

    vocab: instead of the preset's.  Compiled peers are left out, with a note, where torch.compile has no working C++
    compiler. Raises UsageError for an unknown peer, before anything is measured.
    """
    for name in peers:
        known_variant(name)
    sizes: dict[str, Any] = {"train.batch": batch, "train.sequence": sequence, "precision": "fp32"}
    if vocab is not None:
        sizes["model.vocab"] = vocab
    config = settings.load(preset=preset, overrides=sizes)
    steps: dict[str, Callable[[], float]] = candidates(config, [*OWN, *dict.fromkeys(peers)])
    notes = []
    for name in PACKAGES if peers else ():
        try:
            steps |= candidates(config, [name])
        except ImportError as error:
            notes.append(f"{name.split()[0]} is not installed ({error}); its row is missing.")
    notes += _leave_out_uncompilable(steps)
    library = tcmalloc()
    if TUNED in steps and library is None:
        notes.append("tcmalloc is not installed (Debian: libtcmalloc-minimal4); its row is missing.")
    elif TUNED in steps and library is not None:
        steps[f"{TUNED} tcmalloc"] = preloaded(config, TUNED, library)
    names = list(steps)
    timings = interleave(steps, rounds=rounds, warmup=2)
    measured = limits()
    size = preset if vocab is None else f"{preset}-v{vocab}"
    work = flops_per_token(config.model, sequence) * batch * sequence / 1e9
    table = Table(
        f"train-step-{size}-b{batch}-t{sequence}",
        f"training step, {size}, batch {batch}, T = {sequence}: forward, backward, clip, AdamW",
        facts=dict(measured),
    )
    for name in names:
        timing = timings[name]
        memory = alone(config, name) if rss and not name.endswith("tcmalloc") else {}
        low = "bf16" in name
        table.add_timing(
            name,
            timing,
            tokens_per_s=batch * sequence / timing.median_s,
            peak_fraction=work / timing.median_s / peak_gflops(measured, "bf16" if low else "fp32"),
            times_ours=ratio(timing, timings[OWN[0] if low else OURS]).median,
            times_ours_bf16=ratio(timing, timings[OWN[0]]).median,
            peak_rss_mb=memory.get("peak_rss_mb"),
        )
        if name in OWN and memory:
            table.facts[f"RSS growth of {name}, step 20 to 200 (MB)"] = memory["growth_mb"]
    table.notes += ["times_ours: how many times as long as our step in the same precision, paired by round.", *notes]
    return table


def _leave_out_uncompilable(steps: dict[str, Callable[[], float]]) -> list[str]:
    """Makes the first step of each compiled peer, which compiles it; drops those that fail and says why."""
    from torch._dynamo.exc import TorchDynamoException  # not above: it would be in the memory of those that run alone

    notes = []
    for name in [name for name in steps if name.startswith("compile") or name in COMPILED]:
        try:
            steps[name]()
        except TorchDynamoException as error:
            del steps[name]
            notes.append(f"{name} is left out: torch.compile failed: {str(error).strip().splitlines()[0]}")
    return notes


def alone(config: settings.Config, name: str) -> dict[str, float]:
    """Peak RSS (MB) of one candidate in its own process; for ours, also its growth from step 20 to step 200."""
    code = (
        "import json, sys; from cllm.bench.train_step import _alone; "
        "print(json.dumps(_alone(json.loads(sys.argv[1]), sys.argv[2])))"
    )
    told = json.dumps(settings.to_dict(config))
    done = subprocess.run([sys.executable, "-c", code, told, name], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _alone(values: dict[str, Any], name: str) -> dict[str, float]:
    step = candidates(settings.load(base=values), [name])[name]
    for _ in range(20 if name in OWN else 4):
        step()
    before = rss_bytes() or 0
    if name in OWN:
        for _ in range(180):
            step()
    return {"peak_rss_mb": (peak_rss_bytes() or 0) / 1e6, "growth_mb": ((rss_bytes() or 0) - before) / 1e6}
