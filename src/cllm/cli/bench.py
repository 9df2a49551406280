"""`cllm bench`: figures of speed and memory, as ratios measured side by side in one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App

from cllm.cli.bench_gpu import gpu
from cllm.cli.bench_link import link, scale
from cllm.cli.bench_show import check_folder, show

app = App(
    name="bench",
    help="Measure speed and memory: ours and the peers interleaved in one run, medians and ratios.",
    help_epilogue="""\
Examples:

  cllm bench train-step --preset seed --batch 8 --sequence 256
  cllm bench machine --json""",
    help_format="plaintext",
)
app.command(gpu)
app.command(link)
app.command(scale)


@app.command(name="train-step")
def train_step(
    *,
    preset: str = "small",
    batch: int = 16,
    sequence: int = 128,
    rounds: int = 7,
    vocab: int | None = None,
    peers: Sequence[str] = ("eager fp32", "eager bf16", "compile fp32", "compile bf16"),
    skip_memory: bool = False,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Our training step beside the same model in plain torch.nn with autograd and fused AdamW.

    Examples:

      cllm bench train-step

      cllm bench train-step --preset seed --batch 8 --sequence 256 --save benchmarks

    Parameters
    ----------
    preset: str
        The model's size.
    batch: int
        Rows a step.
    sequence: int
        Tokens a row.
    rounds: int
        Samples of each candidate.
    vocab: int
        Tokens of the vocabulary, instead of the preset's.
    peers: Sequence[str]
        Which peers; may be repeated.
    skip_memory: bool
        Do not run each candidate alone for its peak memory, and ours for 200 steps for its growth.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.train_step import run

    found = run(preset, batch=batch, sequence=sequence, rounds=rounds, peers=peers, rss=not skip_memory, vocab=vocab)
    return show([found], save, json)


@app.command
def profile(
    *,
    preset: str = "seed",
    batch: int = 8,
    sequence: int = 256,
    precision: Sequence[str] = ("bf16", "fp32"),
    rounds: int = 10,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Where the time of a training step goes: each kernel's time, bytes, operations and share of what is possible.

    Examples:

      cllm bench profile

      cllm bench profile --preset small --batch 16 --sequence 128 --precision bf16 --save benchmarks

    Parameters
    ----------
    preset: str
        The model's size.
    batch: int
        Rows a step.
    sequence: int
        Tokens a row.
    precision: Sequence[str]
        Of bf16, fp32 and fp64; may be repeated.
    rounds: int
        Steps; a kernel's figure is the least of them.
    save: Path
        Also write the results as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.profile import run

    found = [run(preset, batch=batch, sequence=sequence, precision=name, rounds=rounds) for name in precision]
    return show(found, save, json)


@app.command
def curves(
    *,
    preset: str = "small",
    steps: int = 300,
    seeds: Sequence[int] = (1, 2, 3),
    save: Path | None = None,
    json: bool = False,
) -> int:
    """The same training in fp32, bf16 and each memory mode as in plain float32 torch: validation losses, paired.

    Exit code 1 when a difference exceeds 0.005 nats a token.

    Examples:

      cllm bench curves

      cllm bench curves --preset nano --steps 100 --seeds 1

    Parameters
    ----------
    preset: str
        The model's size.
    steps: int
        Of each training.
    seeds: Sequence[int]
        Of weights and batches; may be repeated.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.curves import run

    found = run(preset, steps=steps, seeds=seeds, report=lambda line: print(line, file=sys.stderr))
    within = all(row.figures.get("within_target", True) for row in found.rows)
    return show([found], save, json) or int(not within)


@app.command
def numbers(*, rounds: int = 5, save: Path | None = None, json: bool = False) -> int:
    """Exact numbers, primes and lattice maps beside mpmath, gmpy2, sympy and primesieve, where installed.

    Examples:

      cllm bench numbers

      cllm bench numbers --rounds 3 --save benchmarks

    Parameters
    ----------
    rounds: int
        Samples of each candidate.
    save: Path
        Also write the results as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench import lattice
    from cllm.bench import numbers as exact

    return show([*exact.tables(rounds), *lattice.tables(rounds)], save, json)


@app.command
def decode(
    *,
    preset: Sequence[str] = ("seed", "gpt2"),
    batch: Sequence[int] = (1, 4, 16),
    rounds: int = 7,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Cached generation with fp32, bf16 and int8 weights beside the plain torch GPT and transformers, eager bf16.

    Examples:

      cllm bench decode --preset seed --batch 1

      cllm bench decode --preset gpt2 --batch 1 --batch 16 --save benchmarks

    Parameters
    ----------
    preset: Sequence[str]
        The model's size; may be repeated.
    batch: Sequence[int]
        Sequences side by side, 1 to 16; may be repeated.
    rounds: int
        Samples of each candidate.
    save: Path
        Also write the results as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.decode import run

    return show([run(name, batch=count, rounds=rounds) for name in preset for count in batch], save, json)


@app.command
def gemm(
    *,
    precisions: Sequence[str] = ("bf16", "fp32"),
    rounds: int = 9,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """The native matrix products at the shapes of training, beside torch's and beside the register-loop peak.

    Examples:

      cllm bench gemm

      cllm bench gemm --precisions fp32 --rounds 15 --save benchmarks

    Parameters
    ----------
    precisions: Sequence[str]
        Of bf16, fp32 and fp64; may be repeated.
    rounds: int
        Samples of each candidate.
    save: Path
        Also write the results as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.gemm import run

    return show(run(precisions=precisions, rounds=rounds), save, json)


@app.command
def certify(*, quick: bool = False, save: Path | None = None, json: bool = False) -> int:
    """Certificates: time, peak memory and errors, each row in its own process.

    Examples:

      cllm bench certify

      cllm bench certify --quick --json

    Parameters
    ----------
    quick: bool
        Only the rows that take seconds.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.certify import run

    return show([run(large=not quick)], save, json)


@app.command
def machine(*, save: Path | None = None, json: bool = False) -> int:
    """This machine: instruction sets, measured matrix-product peak by precision, memory bandwidth.

    Examples:

      cllm bench machine

      cllm bench machine --json

    Parameters
    ----------
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.machine import limits
    from cllm.bench.measure import Table

    table = Table("machine", "measured limits of this machine")
    for name, value in limits().items():
        table.add(name, value=value)
    return show([table], save, json)


@app.command
def memory(
    *,
    preset: str = "seed",
    batch: int = 8,
    sequence: int = 256,
    rounds: int = 7,
    skip_time: bool = False,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Memory of a training step in each memory mode: planned, allocated, resident; and the time beside the standard.

    Examples:

      cllm bench memory

      cllm bench memory --preset small --skip-time --json

    Parameters
    ----------
    preset: str
        The model's size.
    batch: int
        Rows a micro-batch.
    sequence: int
        Tokens a row.
    rounds: int
        Samples of each step's time.
    skip_time: bool
        Only the memory.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.memory import run

    return show([run(preset, batch=batch, sequence=sequence, rounds=rounds, timed=not skip_time)], save, json)


@app.command
def moments(
    *,
    text: Sequence[str] = ("shakespeare",),
    preset: str = "nano",
    steps: int = 5000,
    seeds: Sequence[int] = (1, 2, 3),
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Quality of 8-bit moments: whole trainings in pairs that differ in `memory` alone, scored on the validation part.

    Examples:

      cllm bench moments

      cllm bench moments --steps 1000 --seeds 1 --json

    Parameters
    ----------
    text: Sequence[str]
        What to train on, as for cllm train.
    preset: str
        The model's size.
    steps: int
        Steps of each training.
    seeds: Sequence[int]
        One pair each.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.moments import run

    return show([run(list(text), preset=preset, steps=steps, seeds=tuple(seeds))], save, json)


@app.command
def prepare(
    *,
    size: Sequence[int] = (50, 200),
    vocab_size: int = 1000,
    folder: Path | None = None,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Time and memory of `cllm data prepare` for texts of growing size.

    Examples:

      cllm bench prepare

      cllm bench prepare --size 200 --size 2000 --save benchmarks

    Parameters
    ----------
    size: Sequence[int]
        Megabytes of text; may be repeated.
    vocab_size: int
        Of the byte-pair encoding.
    folder: Path
        Where the text and the shards lie meanwhile (some three times the text).
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.prepare import run

    return show([run(size, vocab_size=vocab_size, folder=folder)], save, json)


@app.command
def startup(*, preset: str = "seed", rounds: int = 5, save: Path | None = None, json: bool = False) -> int:
    """How long a command takes before it does anything: `--help`, and `generate` to its first token.

    Examples:

      cllm bench startup

      cllm bench startup --preset nano --rounds 3 --json

    Parameters
    ----------
    preset: str
        The size of the model that generates.
    rounds: int
        Samples of each command.
    save: Path
        Also write the result as JSON into this folder.
    json: bool
        Print one JSON object.
    """
    check_folder(save)
    from cllm.bench.startup import run

    return show([run(preset, rounds=rounds)], save, json)
