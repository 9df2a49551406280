"""What `import cllm` offers: train, load, generate, evaluate, plan; `Run` is a model on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cllm import config as settings
from cllm.bench.peak import peak_flops
from cllm.config import Config
from cllm.data.prepare import open_prepared, prepare
from cllm.data.stream import SequentialRows
from cllm.errors import CorruptError, RunError, UsageError
from cllm.evaluation.choices import Choices, answer, read_questions
from cllm.evaluation.continuation import Scorer
from cllm.evaluation.ngram import ngram_bits_per_byte
from cllm.generation.generate import Piece, Request
from cllm.generation.generate import generate as _generate
from cllm.model.model import Model
from cllm.model.narrow import with_weights
from cllm.model.step import Step
from cllm.text import Tokenizer
from cllm.training import checkpoint
from cllm.training.distributed.entry import refuse_processes
from cllm.training.distributed.group import Group
from cllm.training.interrupt import Interrupt
from cllm.training.loop import Outcome
from cllm.training.plan import Size, device_of, size
from cllm.training.progress import display_for
from cllm.training.range_test import RangeTest, check_range, range_test
from cllm.training.run import (
    DATA_FOLDER,
    TOKENIZER_FILE,
    as_resumed,
    open_tokenizer,
    passing,
    read_run_file,
    settings_of,
    started_again,
    starting_point,
)
from cllm.training.run import train as _train
from cllm.training.state import DTYPES
from cllm.training.validation import Score, score

if TYPE_CHECKING:
    from cllm.certificate.replay_report import Replay

Source = str | Path


class Run:
    """A run directory. Nothing is read until it is needed.

    path: the directory.  which: "latest", "best" or a checkpoint's name.
    Raises RunError when the directory holds no run.
    """

    def __init__(self, path: Source, which: str = "latest", device: str = "auto") -> None:
        self.path, self.which = Path(path), which
        self.outcome: Outcome | None = None  # how the training that returned this run ended
        self.config: Config = settings.replace(read_run_file(self.path), {"device": device})

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def checkpoint(self) -> checkpoint.Checkpoint:
        """The newest good checkpoint (or the one asked for), every hash verified."""
        return checkpoint.load(self.path, self.which, with_state=False)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer. Raises RunError when it is not the one the checkpoint was trained with."""
        found = open_tokenizer(self.path)
        expected = self.checkpoint.meta.get("tokenizer")
        if found.sha256 != expected:
            raise RunError(
                f"{self.path / 'tokenizer.json'}: its hash is {found.sha256[:16]}…, but {self.checkpoint.name} was "
                f"trained with {str(expected)[:16]}…; restore the original file"
            )
        return found

    @cached_property
    def model(self) -> Model:
        """The weights to use: the moving average where the run keeps one."""
        c = self.config
        try:
            return Model(c.model, DTYPES[c.precision], device_of(c)).load(self.checkpoint.weights)
        except ValueError as error:
            raise CorruptError(f"{self.path}: run.toml and {self.checkpoint.name} do not fit: {error}") from None

    def stream(self, prompt: str = "", **options: Any) -> Iterator[Piece]:
        """Generate piece by piece; options as in `generate`. Each piece has the new text and its surprise in bits."""
        return _generate(self.model, self.tokenizer, prompt, Request.of(**options))

    def generate(self, prompt: str = "", **options: Any) -> str:
        """Continue `prompt`; returns the new text.

        Options: max_tokens=200, temperature=0.8 (0 takes the likeliest), top_k, top_p, min_p, repetition_penalty,
        seed, stop (list of strings to stop before), past_context ("stop" or "slide"), weights ("fp32", "bf16" or
        "int8": smaller and faster, at an error that `evaluate` tells; default: as the run computes).
        """
        return "".join(piece.text for piece in self.stream(prompt, **options))

    def evaluate(self, data: Source | Sequence[Source] | None = None, **options: Any) -> Score:
        """Score text: loss in nats a token, perplexity, bits per byte, accuracy. Without data: the validation part."""
        return evaluate(self, data, **options)


def load(path: Source, which: str = "latest", device: str = "auto") -> Run:
    """Open a run directory."""
    return Run(path, which, device)


def train(
    data: Source | Sequence[Source] | None = None,
    *,
    run: Source | None = None,
    preset: str | None = None,
    out: Source | None = None,
    resume: bool = False,
    start: Source | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),
    quiet: bool = False,
) -> Run:
    """Train a model and return its run.

    data: files, folders, globs, "-" (standard input) or a named corpus; None when the run file says it.
    run: a run file (TOML).  preset: nano, small, seed, medium, large or gpt2.  out: the run directory
    (default: runs/ and the data's name).  resume: continue what is in `out`.
    start: a run whose weights, model settings and tokenizer this one begins with (a new optimiser state, step 0).
    set: settings by dotted name, {"train.steps": 1000}.  quiet: show nothing.

    >>> run = cllm.train("book.txt", preset="nano", out="runs/book")  # doctest: +SKIP
    >>> print(run.generate("It was"))  # doctest: +SKIP
    """
    run_dir, config, asked = _to_train(data, run, preset, out, resume, start, set)
    group = Group.from_environment(cuda=device_of(config).type == "cuda", timeout_s=config.distributed.timeout_s)
    if group.agree(group.first and started_again(run_dir, group)):
        resume, config = True, as_resumed(run_dir, asked) or config
    peak = peak_flops(config.precision, device_of(config).type) if config.log.mfu else None
    with display_for(run_dir, quiet=quiet or not group.first) as display:
        outcome = _train(config, run_dir, resume=resume, display=display, peak_flops=peak, group=group)
        display.end(outcome)
    group.close()
    found = Run(run_dir)
    found.outcome = outcome
    return found


def _to_train(
    data: Source | Sequence[Source] | None,
    run: Source | None,
    preset: str | None,
    out: Source | None,
    resume: bool,
    start: Source | None,
    given: Mapping[str, Any] | Sequence[str],
) -> tuple[Path, Config, dict[str, Any]]:
    """The run directory, the settings, and which of them were asked for."""
    paths, asked = _asked(data, given)
    if out is not None and not str(out):
        raise UsageError("--out: expected a folder, got an empty name")
    if resume and start is not None:
        raise UsageError("--resume goes on with the run's own weights; --from starts a new run: leave one of them out")
    if out is None and run is None and not paths:
        raise UsageError("no text given. Say what to train on: cllm train book.txt, or --run FILE.toml")
    run_dir = Path(out) if out is not None else Path("runs") / _name(paths, run)
    base: dict[str, Any] = starting_point(Path(start)) if start is not None else {}
    if resume:
        base = settings_of(run_dir) or {}
    config = settings.load(run, preset=preset, overrides=asked, base=base)
    return run_dir, config, asked


def check_processes(
    data: Source | Sequence[Source] | None,
    processes: int,
    restarts: int | None,
    *,
    run: Source | None = None,
    preset: str | None = None,
    out: Source | None = None,
    resume: bool = False,
    start: Source | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),
) -> int:
    """Refuse what so many processes cannot do, before they are started; else their number. Arguments as in `train`.

    Raises UsageError, ConfigError.
    """
    if processes < 1:
        raise UsageError(f"--processes {processes}: expected 1 or more")
    if (restarts or 0) < 0:
        raise UsageError(f"--restarts {restarts}: expected 0 or more")
    if "RANK" in os.environ and processes > 1:
        raise UsageError("--processes: torchrun has started this already, with its own number of them; leave it out")
    _, config, _ = _to_train(data, run, preset, out, resume, start, set)
    refuse_processes(config, processes)
    return processes


def evaluate(
    run: Run | Source,
    data: Source | Sequence[Source] | None = None,
    *,
    batch: int = 16,
    stride: int | None = None,
    weights: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Score:
    """Score text with a run; without data, its validation part. Every token is a target exactly once.

    Rows are as long as in training. stride: rows overlap and only the last `stride` targets of each are new, so that
    no token is scored with a short context (sliding window). weights: the matrices as fp32, bf16 or int8 (one scale a
    row) would store them; default: as the run computes. Raises DataError for text that cannot be used.
    """
    run = run if isinstance(run, Run) else Run(run)
    c, model = run.config, run.model
    if weights is not None:
        model = with_weights(model, weights)
    with tempfile.TemporaryDirectory(prefix="cllm-eval-") as folder:
        if data is None:
            shard = open_prepared(run.path / DATA_FOLDER).val
            if shard is None:
                raise RunError(f"{run.path}: the run has no validation part; say what to evaluate on")
        else:
            paths = [data] if isinstance(data, (str, Path)) else list(data)
            tokenizer = run.path / TOKENIZER_FILE
            shard = prepare(
                [str(path) for path in paths], folder, tokenizer=tokenizer, val_fraction=0.0, field=c.data.field
            ).train
        sequence = c.train.sequence or c.model.context
        rows = SequentialRows(shard, sequence, pack=c.data.pack, stride=stride)
        step = Step(
            model,
            min(batch, len(rows)),
            sequence,
            document_mask=c.data.document_mask,
            gradients=False,
        )
        lengths = run.tokenizer.byte_lengths if shard.lossless else None
        found = score(step, model, rows, lengths, progress=progress)
        assert found is not None, "nothing asks this scoring to stop"
        return found


def choices(
    run: Run | Source,
    file: Source,
    *,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Choices:
    """Accuracy on multiple-choice questions, one JSON object a line (format: cllm.evaluation.choices). Raises
    DataError with the line of a question that cannot be used."""
    run = run if isinstance(run, Run) else Run(run)
    questions = read_questions(Path(file))
    return answer(Scorer(run.model, run.tokenizer, batch=batch), questions, progress)


def ngrams(run: Run | Source, orders: Sequence[int] = (1, 2, 3, 5)) -> dict[int, float]:
    """Bits per byte of smoothed byte n-gram models fitted on the run's training part, on its validation part: what
    the model has to beat. Raises RunError without a validation part, DataError when the tokenizer lost some text."""
    run = run if isinstance(run, Run) else Run(run)
    data = open_prepared(run.path / DATA_FOLDER)
    if data.val is None:
        raise RunError(f"{run.path}: the run has no validation part to score n-gram models on")
    return ngram_bits_per_byte(data.train.texts(data.tokenizer), data.val.texts(data.tokenizer), orders)


def plan(run: Source | None = None, *, preset: str | None = None, set: Mapping[str, Any] | Sequence[str] = ()) -> Size:
    """Parameters, bytes by part and FLOPs a token of a configuration, without training it."""
    given = set if isinstance(set, Mapping) else dict(settings.split_setting(text) for text in set)
    return size(settings.load(run, preset=preset, overrides=given))


def _asked(
    data: Source | Sequence[Source] | None, given: Mapping[str, Any] | Sequence[str]
) -> tuple[list[Source], dict[str, Any]]:
    """The data's names, and all settings asked for, those names among them."""
    paths = [data] if isinstance(data, (str, Path)) else list(data or [])
    asked: dict[str, Any] = {"data.path": [str(path) for path in paths]} if paths else {}
    given = [given] if isinstance(given, str) else given
    more = given if isinstance(given, Mapping) else dict(settings.split_setting(text) for text in given)
    if paths and "data.path" in more:
        raise UsageError("data.path: given twice, as DATA and as a setting; leave one out")
    return paths, {**asked, **more}


def find_lr(
    data: Source | Sequence[Source] | None = None,
    *,
    run: Source | None = None,
    preset: str | None = None,
    start: Source | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    quiet: bool = False,
) -> RangeTest:
    """Train a throw-away model with the rate rising from `low` to `high`, and suggest a rate. Arguments as in `train`.

    Leaves nothing behind. Ctrl-C ends it early (`ended` is then "interrupted"). Raises as `train` does.
    """
    check_range(low, high, steps)
    paths, asked = _asked(data, set)
    if run is None and not paths:
        raise UsageError("no text given. Say what to train on: cllm find-lr book.txt, or --run FILE.toml")
    base = starting_point(Path(start)) if start is not None else {}
    config = settings.load(run, preset=preset, overrides=asked, base=base)
    with (
        display_for(Path(), quiet=quiet) as display,
        passing(config, display) as (state, prepared),
        Interrupt(announce=False).installed() as interrupt,
    ):
        return range_test(
            state,
            prepared,
            low=low,
            high=high,
            steps=steps,
            progress=lambda done, total: display.preparing("steps", done, total),
            stop=lambda: interrupt.name is not None,
        )


def replay(
    run: Run | Source, *, step: int | None = None, batch: Source | None = None, balls: bool | None = None
) -> Replay:
    """Run one step of a run again, in its own format, in float64 and in balls, and say where the format gave out.

    step: that behind checkpoint step-N; None: the one that the guard refused.  batch: a file that the guard wrote.
    balls: None does them where they take seconds. Nothing is changed. Raises RunError, CorruptError.
    """
    from cllm.certificate.replay_report import replay as again

    return again(run.path if isinstance(run, Run) else run, step=step, batch=batch, balls=balls)


def _name(paths: Sequence[Source], run: Source | None) -> str:
    first = str(run) if run is not None else str(paths[0])
    stem = Path(first).name.split(".")[0].strip("*?[]")
    return stem if stem and stem != "-" else "stdin" if first == "-" else "text"


def generate(run: Run | Source, prompt: str = "", **options: Any) -> str:
    """Continue `prompt` with a run; options as in `Run.generate`."""
    return (run if isinstance(run, Run) else Run(run)).generate(prompt, **options)
