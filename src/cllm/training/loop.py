"""The one training loop: data → step → update → events and checkpoints.

A run is resumable at every step: all state is in `State`, the data stream and the random masks are functions of it.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from cllm.data.prepare import Prepared
from cllm.data.stream import SequentialRows, Stream
from cllm.engine.dropout import Key
from cllm.errors import NonFiniteError
from cllm.generation.generate import Request, generate
from cllm.model.batch import Batch
from cllm.model.step import Step
from cllm.training import checkpoint, guard
from cllm.training.curve import write_curve
from cllm.training.events import EventLog
from cllm.training.optimiser import gradient_norm, update
from cllm.training.plan import make_step, schedule_of, settle, steps_for
from cllm.training.schedule import lr_at
from cllm.training.state import State
from cllm.training.validation import Score, score


class Reporter(Protocol):
    """Where a running training shows itself (training/progress.py has the terminal's)."""

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None: ...

    def message(self, text: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a training ended: reason ("done", "early stop" or "interrupted"), step, steps planned, and the last score of
    the whole validation part."""

    reason: str
    step: int
    steps: int
    score: Score | None


class Interrupt:
    """SIGINT and SIGTERM ask the loop to stop behind the current step; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    @contextmanager
    def installed(self) -> Iterator[Interrupt]:
        """Catch the signals inside the block (only the main thread can)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._caught) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


class Loop:
    """One training run in one process.

    run_dir: exists and is locked by the caller.  state: fresh or restored.  data: its shards.
    The configuration must be settled (`fix_steps` does it) before `run`.
    """

    def __init__(self, run_dir: Path, state: State, data: Prepared, report: Reporter) -> None:
        self.run_dir, self.state, self.data, self.report = run_dir, state, data, report
        c = state.config
        self.step: Step = make_step(state)
        sequence = self.step.sequence
        self.stream = Stream(data.train, sequence, seed=c.seed, pack=c.data.pack)
        self.rows = SequentialRows(data.val, sequence, pack=c.data.pack) if data.val is not None else None
        self.byte_lengths = data.tokenizer.byte_lengths if data.val is not None and data.val.lossless else None
        self._marked = -1  # step of the newest checkpoint

    # ------------------------------------------------------------------------------------------ before step 0

    def fix_steps(self) -> None:
        """Settle `train.steps`: given, or as many as fit `max_minutes`, measured on throw-away steps."""
        c = self.state.config
        steps = c.train.steps
        if steps is None:
            minutes = c.train.max_minutes
            assert minutes is not None
            self.report.message(f"timing the first steps to fit {minutes:g} minutes …")
            steps = self._measure(minutes)
        self.state.config = settle(c, steps)

    def _measure(self, minutes: float) -> int:
        """Time real steps on a scratch state, so that the run itself starts untouched."""
        c = self.state.config
        scratch = State.fresh(c, self.state.model.device)
        norm_clip = c.optim.clip
        limit = c.train.eval_rows or 4 * c.train.batch

        def one_step() -> None:
            batches = self._batches(0)
            self._gradients(batches, 0)
            update(scratch, self.step, self.step.kernels, 0.0, gradient_norm(self.step, norm_clip))

        def one_evaluation() -> None:
            if self.rows is not None:
                score(self.step, self.state.model, self.rows, None, limit=limit)

        return steps_for(minutes, one_step, one_evaluation)

    # ------------------------------------------------------------------------------------------------- the run

    def run(self, log: EventLog, notes: dict[str, Any]) -> Outcome:
        """Train to `train.steps`, or until interrupted. `notes` goes into the first event."""
        state = self.state
        c = state.config
        steps = c.train.steps
        assert steps is not None
        schedule = schedule_of(c)
        log.emit("start" if state.step == 0 else "resume", state.step, steps=steps, **notes)
        final: Score | None = None
        with Interrupt().installed() as interrupt:
            while state.step < steps and interrupt.name is None and not self._stalled:
                begin = time.perf_counter()
                lr = lr_at(schedule, state.step)
                batches = self._batches(state.position)
                self._gradients(batches, state.step)
                loss, targets = self.step.sums.mean, self.step.sums.valid
                norm = gradient_norm(self.step, c.optim.clip)
                if not (math.isfinite(loss) and norm.finite):
                    self._refuse(log, batches, loss, norm.value)
                update(state, self.step, self.step.kernels, lr, norm)
                state.position += sum(batch.tokens_BT1.shape[0] for batch in batches)
                rate = targets / (time.perf_counter() - begin)
                self.report.step(state.step, loss, lr, norm.value, rate)
                if state.step % c.log.every == 0 or state.step == steps:
                    log.emit(
                        "step",
                        state.step,
                        loss=loss,
                        lr=lr,
                        grad_norm=norm.value,
                        tokens=state.tokens,
                        tokens_per_s=round(rate, 1),
                    )
                self._on_the_way(log, steps)
            better = False
            if state.step >= steps or self._stalled:
                better = self._improved(log)
                final = self._evaluate(log, whole=True)
            self._save(log, best=better)
            early = "early stop" if self._stalled and state.step < steps else "done"
            log.emit("stop", state.step, reason=interrupt.name or early)
        write_curve(self.run_dir)
        return Outcome("interrupted" if interrupt.name else early, state.step, steps, final)

    def _batches(self, position: int) -> list[Batch]:
        """The micro-batches of the step that starts at row `position` of the stream."""
        t = self.state.config.train
        found = []
        for i in range(t.accumulate):
            rows = self.stream.rows(position + i * t.batch, t.batch)
            tokens, documents = torch.from_numpy(rows.tokens_BT1), torch.from_numpy(rows.documents_BT1)
            found.append(Batch(tokens, documents, first_row=i * t.batch))
        return found

    def _gradients(self, batches: list[Batch], step: int) -> None:
        self.step.zero()
        for batch in batches:
            self.step.accumulate(batch, self._key(step))

    def _key(self, step: int) -> Key | None:
        m = self.state.config.model
        return Key(self.state.config.seed, step) if m.dropout or m.attention_dropout else None

    def _on_the_way(self, log: EventLog, steps: int) -> None:
        """Evaluate, sample and save where the cadence says so (the last step does it anyway)."""
        step, c = self.state.step, self.state.config
        if step >= steps:
            return
        better = bool(c.train.eval_every) and step % (c.train.eval_every or 1) == 0 and self._improved(log)
        if c.train.sample_every and step % c.train.sample_every == 0:
            self._sample(log)
        if better or (c.checkpoint.every and step % c.checkpoint.every == 0):
            self._save(log, best=better)

    def _improved(self, log: EventLog) -> bool:
        """Score the usual rows; whether this is the lowest validation loss so far."""
        result = self._evaluate(log, whole=False)
        if result is None:
            return False
        if self.state.best is not None and result.loss >= self.state.best:
            self.state.waited += 1
            return False
        self.state.best, self.state.waited = result.loss, 0
        return True

    @property
    def _stalled(self) -> bool:
        """Whether early stopping is on and its patience is over."""
        patience = self.state.config.train.early_stop
        return patience is not None and self.state.waited >= patience

    def _evaluate(self, log: EventLog, *, whole: bool) -> Score | None:
        if self.rows is None:
            return None
        c = self.state.config
        limit = None if whole else c.train.eval_rows
        result = score(self.step, self.state.evaluated, self.rows, self.byte_lengths, limit=limit)
        log.emit("eval", self.state.step, whole=whole, **result.to_dict())
        bits = "" if result.bits_per_byte is None else f", {result.bits_per_byte:.3f} bits per byte"
        part = "whole validation part" if whole else "validation"
        self.report.message(f"step {self.state.step}: {part} loss {result.loss:.4f} nats a token{bits}")
        return result

    def _sample(self, log: EventLog) -> None:
        request = Request.of(max_tokens=self.state.config.train.sample_tokens, seed=self.state.config.seed)
        text = "".join(piece.text for piece in generate(self.state.evaluated, self.data.tokenizer, "", request))
        log.emit("sample", self.state.step, text=text)
        self.report.message(f"step {self.state.step}: sample\n{_indented(text)}")

    def _save(self, log: EventLog, *, best: bool = False) -> None:
        if self._marked == self.state.step:
            return
        weights, rest = self.state.tensors()
        log.sync()
        path = checkpoint.save(
            self.run_dir,
            self.state.step,
            weights,
            rest,
            self.state.meta() | {"tokenizer": self.data.tokenizer.sha256},
            keep=self.state.config.checkpoint.keep,
            best=best,
        )
        self._marked = self.state.step
        log.emit("checkpoint", self.state.step, name=path.name, best=best)

    def _refuse(self, log: EventLog, batches: list[Batch], loss: float, norm: float) -> None:
        """Nothing was updated yet: keep this state, write the batch, name the birthplace."""
        step = self.state.step
        path = self.run_dir / f"nonfinite-step-{step:08d}.safetensors"
        digest = guard.write_batch(path, batches)
        place = guard.birthplace(self.step, batches, self._key(step))
        what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
        where = f"first seen in {place}" if place else "every op is finite: the sum overflowed"
        self._save(log)
        log.emit("alert", step, kind="non-finite", what=what, where=str(place), batch=path.name, batch_sha256=digest)
        log.emit("stop", step, reason="non-finite")
        write_curve(self.run_dir)
        raise NonFiniteError(
            f"step {step + 1}: {what}, {where}. The update was not made; the state before it is saved in "
            f"{self.run_dir}, its batch in {path.name}. A lower optim.lr or a longer schedule.warmup is the usual cure."
        )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
