"""The one training loop: data → step → update → events and checkpoints.

A run is resumable at every step: all state is in `State`, the data stream and the random masks are functions of it.

With several ranks each runs this loop, on the same figures, so all decide alike. What only one process can know, the
clock and the signals, is agreed on; rank 0 alone writes: events, checkpoints, samples, the terminal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from cllm.data.prepare import Prepared
from cllm.data.stream import SequentialRows, Stream
from cllm.errors import CllmError, NonFiniteError, RunError
from cllm.generation.generate import Request, generate
from cllm.model.layout import flops_per_token
from cllm.model.step import Step
from cllm.training import checkpoint
from cllm.training.curve import write_curve
from cllm.training.distributed.arrange import arrange
from cllm.training.distributed.gather import whole
from cllm.training.distributed.group import Group, PeerLost
from cllm.training.distributed.handover import hand_over
from cllm.training.distributed.split import FIXED
from cllm.training.events import EventLog
from cllm.training.group_norms import norms_by_group, norms_of_pieces
from cllm.training.plan import EVALUATIONS, evaluation_rows, schedule_of, settle, steps_for
from cllm.training.refusal import refuse
from cllm.training.saver import Saved, Saver
from cllm.training.schedule import lr_at
from cllm.training.spikes import Spike, judge, rollback_checkpoint, rollback_step
from cllm.training.starting import Origin
from cllm.training.state import State
from cllm.training.stepper import Stepper
from cllm.training.stopping import Stopping
from cllm.training.trackers import Feed
from cllm.training.validation import Score, score


class Reporter(Protocol):
    """Where a running training shows itself (training/progress.py has the terminal's)."""

    def step(self, step: int, loss: float, lr: float, grad_norm: float, tokens_per_s: float) -> None: ...

    def message(self, text: str) -> None: ...

    @property
    def quiet(self) -> bool: ...


@dataclass(frozen=True)
class Outcome:
    """How a training ended: reason ("done", "early stop" or "interrupted"), step, steps planned, and the last score of
    the whole validation part."""

    reason: str
    step: int
    steps: int
    score: Score | None


class Loop:
    """One training run, in one process or in each of several.

    run_dir: exists and is locked by the caller.  state: fresh or restored.  data: its shards.  group: the ranks, whose
    states are equal.  The configuration must be settled (`fix_steps` does it) before `run`.
    """

    def __init__(
        self, run_dir: Path, state: State, data: Prepared, report: Reporter, group: Group | None = None
    ) -> None:
        self.run_dir, self.state, self.data, self.report = run_dir, state, data, report
        self.group = group or Group.alone()
        c = state.config
        self.stepper = Stepper(state, data.train, group=self.group)
        sequence = self.step.sequence
        self.rows = SequentialRows(data.val, sequence, pack=c.data.pack) if data.val is not None else None
        self.byte_lengths = data.tokenizer.byte_lengths if data.val is not None and data.val.lossless else None
        self.peak_flops: float | None = None  # the machine's: where it is known, utilisation is logged
        self.origin: Origin | None = None  # where the first weights come from, if from another run
        self._flops_per_token = flops_per_token(c.model, sequence)
        self._stopping = Stopping(self.group)
        self._saver = Saver(run_dir, background=c.checkpoint.background, sync=self._sync_log)
        self._marked = -1  # step of the newest checkpoint, on disk or on its way there
        self._evaluated = -1  # step of the newest evaluation
        self._log_failed = False

    @property
    def step(self) -> Step:
        """The buffers of a step."""
        return self.stepper.step

    @property
    def stream(self) -> Stream:
        """The training rows."""
        return self.stepper.stream

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
        """Time real steps at a rate of 0, which leaves the parameters as they are; then forget them."""
        state = self.state

        def one_step() -> None:
            norm = self.stepper.gradients(self.stepper.batches(0), 0)
            self.stepper.update(0.0, norm)

        def one_evaluation() -> None:
            if self.rows is not None:
                score(self.step, state.model, self.rows, None, limit=timed_rows, group=self.group)

        def clock() -> float:
            now: float = self.group.agree(time.perf_counter())
            return now

        timed_rows = evaluation_rows(state.config)
        whole = 0.0 if self.rows is None else len(self.rows) / min(timed_rows, len(self.rows))
        steps = steps_for(minutes, one_step, one_evaluation, EVALUATIONS + whole, clock)
        for moment in state.moments.values():
            moment.zero_()
        state.step = state.tokens = state.position = 0
        return steps

    # ------------------------------------------------------------------------------------------------- the run

    def run(self, log: EventLog | Feed | None, notes: dict[str, Any]) -> Outcome:
        """Train to `train.steps`, or until interrupted. `notes` goes into the first event. log: rank 0's, else None."""
        self._events = log
        c = self.state.config
        steps = c.train.steps
        assert steps is not None
        schedule = schedule_of(c)
        self._log("start" if self.state.step == 0 else "resume", steps=steps, **notes)
        with self._stopping.installed(announce=not self.report.quiet):
            try:
                if self.state.step == 0:
                    self._save_now()  # from here on there is always something to resume
                while self.state.step < steps and not self._stopping.agreed(self.stepper.told) and not self._stalled:
                    self._one_step(lr_at(schedule, self.state.step), steps)
                    self._on_the_way(steps)
                return self._finish(steps)
            finally:
                self._saver.close()

    def _one_step(self, lr: float, steps: int) -> None:
        """Gradients, the guard's judgement, the update, its event."""
        state = self.state
        begin = time.perf_counter()
        self.stepper.flag = self._stopping.code
        norm = self.stepper.gradients(self.stepper.batches(state.position), state.step, lr)
        loss, targets = self.stepper.loss, self.step.sums.valid
        if not self.stepper.finite(norm):
            self._refuse(loss, norm.value)
        spike = judge(state, loss, norm.value)
        skipped = spike is not None and not spike.level
        if skipped and state.config.guard.spikes == "rollback":
            assert spike is not None
            self._roll_back(spike)
            return
        logged = (state.step + 1) % state.config.log.every == 0 or state.step + 1 == steps
        norms = self._norms() if logged and state.config.log.grad_norms else {}
        if skipped:
            self.stepper.skip()
        else:
            self.stepper.update(lr, norm)
        noise = self.stepper.noise_scale(norm)
        rate = targets / (time.perf_counter() - begin)
        self.report.step(state.step, loss, lr, norm.value, rate)
        if logged:
            figures = {"loss": loss, "lr": lr, "grad_norm": norm.value, "tokens": state.tokens}
            more: dict[str, Any] = {"skipped": True} if skipped else {}
            if norms:
                more["grad_norms"] = norms
            if noise is not None:
                more["noise_scale"] = round(noise)
            if self.peak_flops is not None:
                more["mfu"] = round(self._flops_per_token * rate / (self.peak_flops * self.group.size), 4)
            self._log("step", **figures, tokens_per_s=round(rate, 1), **more)
        if spike is not None:
            what = "a new level: the average starts again" if spike.level else "a spike: the update is left out"
            self._alert("spike", f"{spike}: {what}", action="level" if spike.level else "skip", **spike.to_dict())

    def _norms(self) -> dict[str, float]:
        """Gradient norms by group, on rank 0 at least."""
        reducer = self.stepper.reducer
        if reducer is not None and self.stepper.arrangement.zero:
            return norms_of_pieces(reducer, self.step.sums.valid)
        return norms_by_group(self.step) if self.group.first else {}

    def _roll_back(self, spike: Spike) -> None:
        """To the newest checkpoint of the cadence, and on with the rows behind the spike."""
        state, c = self.state, self.state.config
        at, rows = state.step, state.position + self.stepper.rows
        self._settle_save()
        target = rollback_step(at, c.checkpoint.every or 0)
        found = self.group.lead(lambda: rollback_checkpoint(self.run_dir, target))
        device = state.model.device
        del self.stepper  # its memory, before that of the next
        self.state = hand_over(self.group, c, found, device)
        for name in ("best", "waited", "statistics"):  # these belong to the course, not to the step
            setattr(self.state, name, getattr(state, name))
        self.state.position = rows
        self.stepper = Stepper(self.state, self.data.train, group=self.group)
        name = checkpoint.checkpoint_name(self.state.step)
        self._log("resume", steps=c.train.steps, **{"from": name}, rolled_back_from=at)
        gone = "" if self.state.step == target else f" ({checkpoint.checkpoint_name(target)} is gone)"
        self._alert(
            "spike",
            f"{spike} in step {at + 1}: back to {name}{gone}, and on with the rows behind it",
            action="rollback",
            at_step=at,
            **spike.to_dict(),
        )
        self._marked, self._evaluated = self.state.step, -1

    def _finish(self, steps: int) -> Outcome:
        """Save first; then, if the training is over, score the whole validation part (which may be interrupted)."""
        over = self.state.step >= steps or self._stalled
        better = over and self._evaluated != self.state.step and self._improved()
        self._save_now(best=better)
        final = self._evaluate(whole=True) if over and not self._stopping.ask() else None
        reason = "done" if self.state.step >= steps else "early stop" if self._stalled else "interrupted"
        self._log("stop", reason=self._stopping.name if reason == "interrupted" else reason)
        self._draw()
        return Outcome(reason, self.state.step, steps, final)

    def _on_the_way(self, steps: int) -> None:
        """Evaluate, sample and save where the cadence says so (the end of the training does it anyway)."""
        step, c = self.state.step, self.state.config
        if step >= steps:
            return
        better = bool(c.train.eval_every) and step % (c.train.eval_every or 1) == 0 and self._improved()
        if c.train.sample_every and step % c.train.sample_every == 0:
            self._sample()
        if not self._saver.busy:
            self._settle_save()
        if better or (c.checkpoint.every and step % c.checkpoint.every == 0):
            try:
                self._save(best=better)
            except PeerLost:
                raise
            except RunError as error:  # written at once; the next one may find room again, the last one must
                self._save_failed(error)

    def _improved(self) -> bool:
        """Score the usual rows; whether this is the lowest validation loss so far."""
        self._evaluated = self.state.step
        result = self._evaluate(whole=False)
        if result is None:
            return False
        if self.state.best is not None and result.loss >= self.state.best:
            self.state.waited += 1
            return False
        self.state.best, self.state.waited = result.loss, 0
        return True

    def _draw(self) -> None:
        if self.group.first:
            write_curve(self.run_dir)

    @property
    def _stalled(self) -> bool:
        """Whether early stopping is on and its patience is over."""
        patience = self.state.config.train.early_stop
        return patience is not None and self.state.waited >= patience

    def _evaluate(self, *, whole: bool) -> Score | None:
        if self.rows is None:
            return None
        limit = None if whole else evaluation_rows(self.state.config)
        if whole and len(self.rows) > 16 * evaluation_rows(self.state.config):
            self.report.message(f"scoring all {len(self.rows):,} validation rows …")
        result = score(
            self.step,
            self.state.evaluated,
            self.rows,
            self.byte_lengths,
            limit=limit,
            stop=lambda: whole and self._stopping.heard is not None,
            group=self.group,
            whole_batches=self.state.config.distributed.reduction == FIXED,
        )
        if result is None:
            return None
        self._log("eval", whole=whole, **result.to_dict())
        bits = "" if result.bits_per_byte is None else f", {result.bits_per_byte:.3f} bits per byte"
        part = "whole validation part" if whole else "validation"
        self.report.message(f"step {self.state.step}: {part} loss {result.loss:.4f} nats a token{bits}")
        return result

    def _sample(self) -> None:
        """Let the model write a little. Whatever stands in the way of that must not stop the training."""
        if not self.group.first:
            return
        request = Request.of(max_tokens=self.state.config.train.sample_tokens, seed=self.state.config.seed)
        try:
            text = "".join(piece.text for piece in generate(self.state.evaluated, self.data.tokenizer, "", request))
        except CllmError as error:
            self._alert("sample", f"no sample: {error}")
            return
        self._log("sample", text=text)
        self.report.message(f"step {self.state.step}: sample\n{_indented(text)}")

    def _save_now(self, *, best: bool = False) -> None:
        """Save this state and wait until it is durable, on all ranks. Raises RunError when it cannot be."""
        failed: RunError | None = None
        if self.state.shard is not None:  # with the pieces of all
            try:
                self._save(best=best)
            except RunError as error:
                failed = error

        def durable() -> None:
            if failed is not None:
                raise failed
            if self.state.shard is None:
                self._save(best=best)
            self._saved(self._saver.wait())

        self.group.lead(durable)

    def _save(self, *, best: bool = False) -> None:
        """Start saving this state, once the save before is through: rank 0 does it, with the pieces of all ranks where
        they have pieces."""
        needed = self._marked != self.state.step
        if self.state.shard is not None:
            needed = self.group.agree(needed)
        elif not self.group.first:
            return
        if not needed:
            return
        if self.state.shard is None:
            self._settle_save()
        else:  # the others wait for it
            self.group.lead(self._settle_save)
        c, meta = self.state.config, self.state.meta()
        meta |= {"tokenizer": self.data.tokenizer.sha256, "data": self.data.record.train_sha256}
        spare = {checkpoint.checkpoint_name(rollback_step(self.state.step, c.checkpoint.every or 0))}

        def write(weights: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> None:
            self._saver.save(
                self.state.step,
                weights,
                rest,
                meta,
                keep=c.checkpoint.keep,
                best=best,
                spare=spare if c.guard.spikes == "rollback" else (),
            )

        with self._stopping.shield():
            whole(self.state, arrange(c, self.group).plan, self.group, write)
            self._marked = self.state.step
            if not c.checkpoint.background:
                self._saved(self._saver.wait())

    def _settle_save(self) -> None:
        """Wait for the save under way. If it failed, that is said: the next one may find room again."""
        try:
            self._saved(self._saver.wait())
        except RunError as error:
            self._save_failed(error)

    def _saved(self, saved: Saved | None) -> None:
        if saved is not None:
            self._log("checkpoint", saved.step, name=saved.name, best=saved.best)

    def _save_failed(self, error: RunError) -> None:
        self._marked = -1
        self._alert("save", f"{error}\nThe training goes on; the next checkpoint will be tried.")

    def _sync_log(self) -> None:
        with contextlib.suppress(RunError):
            if self._events is not None:
                self._events.sync()

    def _log(self, event: str, step: int | None = None, /, **fields: Any) -> None:
        """Write an event. A disk that refuses it must not stop the training: it is said once."""
        if self._events is None:
            return
        try:
            self._events.emit(event, self.state.step if step is None else step, **fields)
        except RunError as error:
            if not self._log_failed:
                self.report.message(f"{error}\nThe training goes on; its log has a gap.")
            self._log_failed = True

    def _alert(self, kind: str, text: str, **fields: Any) -> None:
        self._log("alert", kind=kind, what=text, **fields)
        self.report.message(f"step {self.state.step}: {text}")

    def _refuse(self, loss: float, norm: float) -> None:
        """Nothing was updated yet: keep this state, write the batch, name the birthplace."""
        found = refuse(self.stepper, self.run_dir, loss, norm)
        more = {}
        if not found.half_made:
            self._save_now()
            more = {"batch_sha256": found.batch_sha256}
        self._log("alert", kind="non-finite", what=found.what, where=str(found.where), batch=found.batch, **more)
        self._log("stop", reason="non-finite")
        self._draw()
        if not self.group.first:
            self.group.end_with(f"step {found.step + 1}: {found.what}")
        raise NonFiniteError(found.text(self.run_dir))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
