"""One optimiser step, the only one there is: training, range tests and measurements all make it with this.

`Stepper` holds no number of the training: those are in `State`, and its buffers are the step's. With several ranks each
computes its share of the rows, and behind `gradients` all hold the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from cllm.data.shard import Shard
from cllm.data.stream import Stream
from cllm.engine.dropout import Key
from cllm.model.batch import Batch
from cllm.model.step import Step, Sums
from cllm.training.distributed.arrange import arrange
from cllm.training.distributed.gather import whole
from cllm.training.distributed.group import Group
from cllm.training.distributed.split import share
from cllm.training.distributed.squares import fsum
from cllm.training.distributed.update import update_pieces
from cllm.training.graph import graphed
from cllm.training.noise import Parts, note
from cllm.training.optimiser import Norm, gradient_norm, update
from cllm.training.plan import make_step, return_memory
from cllm.training.state import State

T = TypeVar("T")


class Stepper:
    """The step of a state on the training part of its data."""

    def __init__(self, state: State, train: Shard, *, fused: bool = True, group: Group | None = None) -> None:
        """fused: False to keep the gradients of a step in the memory mode "fused" instead of using them at once.
        group: the ranks that share each step. Raises ConfigError when there is not something to do for each."""
        c = state.config
        self.group = group or Group.alone()
        self.arrangement = arrange(c, self.group)
        self.share = self.arrangement.share
        self.state, self._first = state, True
        self.reducer = self.arrangement.reducer(state.model.device)
        grads = self.reducer.grads if self.reducer is not None else None
        self.step = make_step(state, fused=fused, rows=self.share.most, several=self.group.size > 1, grads=grads)
        if self.reducer is not None:
            self.reducer.attach(self.step)
        alone = self.reducer is None and not self.arrangement.fixed
        self.graph = graphed(state, self.step) if fused and alone else None
        """On CUDA, where it can be, a step is one launch; its update is then made with the gradients."""
        self._rate = 0.0  # of that update
        self.flag = 0
        """What this rank has to tell the others with the next step's figures (see `told`)."""
        self.told = [0] * self.group.size
        """The flags of all ranks at the last step."""
        self.parts = Parts(self.step) if c.log.noise_scale else None
        self.stream = Stream(train, self.step.sequence, seed=c.seed, pack=c.data.pack)

    @property
    def rows(self) -> int:
        """Rows that a step takes from the stream."""
        t = self.state.config.train
        return t.accumulate * t.batch

    def batches(self, position: int, *, whole: bool = False) -> list[Batch]:
        """This rank's micro-batches of the step that starts at row `position` of the stream. whole: those of all."""
        train = self.state.config.train
        found = []
        for first, count in (share(train, 0, 1) if whole else self.share).parts:
            rows = self.stream.rows(position + first, count)
            tokens, documents = torch.from_numpy(rows.tokens_BT1), torch.from_numpy(rows.documents_BT1)
            found.append(Batch(tokens, documents, first_row=first))
        return found

    def key(self, step: int) -> Key | None:
        """The dropout key of a step, where the model has dropout."""
        m = self.state.config.model
        return Key(self.state.config.seed, step) if m.dropout or m.attention_dropout else None

    def gradients(self, batches: list[Batch], step: int, lr: float = 0.0) -> Norm:
        """Loss and gradient sums of a step (in `self.step`), and the norm of the mean gradient.

        lr: the rate of the update, which in the memory mode "fused" begins here, and as a graph is made here, too
        (unless something is not finite).
        """
        if self.graph is not None:
            found = self.graph.launch(batches, number=step, lr=lr).result()
            self.step.sums, self._rate = Sums(found.loss, found.valid), lr
            return found.norm
        if self.step.sink is not None:
            self.step.sink.arm(lr)
        self.step.zero()
        if self.parts is not None:
            self.parts.begin()
        if self.reducer is not None:
            self.reducer.start()
        sums: list[Sums] = []
        for batch in batches:
            if self.reducer is not None:
                self.reducer.begin(last=len(sums) + 1 == len(batches))
            if self.arrangement.fixed:
                self.step.sums = Sums()  # of each leaf by itself
            sums.append(self.step.accumulate(batch, self.key(step)))
            if self.parts is not None:
                self.parts.behind_micro_batch()
        if self.reducer is None:
            return gradient_norm(self.step, self.state.config.optim.clip)
        self.reducer.finish()
        self._add_up(sums if self.arrangement.fixed else sums[-1:])
        squares = self.reducer.squares() if self.arrangement.fixed or self.arrangement.zero else None
        return gradient_norm(self.step, self.state.config.optim.clip, squares)

    def _add_up(self, sums: list[Sums]) -> None:
        """Loss and targets of all ranks in place of this rank's; exact, so that no order matters."""
        most = max(1, -(-self.state.config.train.accumulate // self.group.size)) if self.arrangement.fixed else 1
        sums = sums + [Sums()] * (most - len(sums))
        every = self.group.gather([self.flag, *(one.loss for one in sums), *(one.valid for one in sums)])
        losses, targets = ([x for one in every for x in one[a : a + most]] for a in (1, 1 + most))
        self.step.sums = Sums(fsum(losses), round(sum(targets)))
        self.told = [round(flag) for flag, *_ in every]

    def noise_scale(self, norm: Norm) -> float | None:
        """The gradient noise scale in targets, as it is known behind these gradients (see noise.py)."""
        if self.parts is None:
            return None
        if self.group.size > 1:
            every = self.group.gather_objects([self.parts.squares, self.parts.targets])
            self.parts.squares = [square for squares, _ in every for square in squares]
            self.parts.targets = [count for _, targets in every for count in targets]
        found = self.parts.estimate(norm.value)
        return None if found is None else note(self.state, *found)

    def update(self, lr: float, norm: Norm) -> None:
        """The optimiser's step in place: one more step done, its rows used up. lr: as for these `gradients`."""
        if self.graph is not None:
            if lr != self._rate:
                raise ValueError(f"update: a rate of {lr}, but the step was made with {self._rate}")
            self.state.step += 1
            self.state.tokens += self.step.sums.valid
        elif self.reducer is not None and self.arrangement.zero:
            update_pieces(self.state, self.reducer, self.step.kernels, lr, norm, self.step.sums.valid)
        else:
            update(self.state, self.step, self.step.kernels, lr, norm)
        self.state.position += self.rows
        if self._first:
            return_memory()  # what the first step's growing workspaces left behind
            self._first = False

    def whole(self, use: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], T]) -> T | None:
        """What `use` gives on rank 0 for the whole state's tensors (see distributed/gather.py). Collective."""
        return whole(self.state, self.arrangement.plan, self.group, use)

    @property
    def looking(self) -> Step:
        """A step that keeps every gradient, to look at them: this one, if it does."""
        if self.step.sink is None and (self.reducer is None or self.reducer.grads is None):
            return self.step
        return make_step(self.state, rows=self.share.most, several=self.group.size > 1)

    def skip(self) -> None:
        """The step counts as done and its rows as used up, but nothing is learnt from them."""
        self.state.step += 1
        self.state.position += self.rows

    @property
    def loss(self) -> float:
        """Of the whole step, nats a token."""
        return self.step.sums.mean

    @property
    def half_made(self) -> bool:
        """Whether a step stopped in the middle of its updates (memory mode "fused"): the state is of no use then."""
        return self.step.sink is not None and self.step.sink.half_made

    def finite(self, norm: Norm) -> bool:
        """Whether loss and gradient may be used."""
        return math.isfinite(self.loss) and norm.finite
