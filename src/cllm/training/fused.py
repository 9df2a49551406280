"""`memory = "fused"`: each matrix is updated inside the backward, as soon as its gradient is complete.

So the gradients of the layers' matrices never exist together: they share one float32 buffer, the memory of the logits,
which are no longer needed then. The embedding's gradient (from the output side first, from the input side last) is kept
in bfloat16. Vectors are small, kept, and updated behind the backward.

The price: the global norm is known only at the end, so nothing can be clipped by it; and a gradient that is not finite
is met in the middle. A loss that is not finite stops the step before any update. A gradient that is not finite stops
the updates where it is met: the tensors behind it, nearer to the output, have been updated already (`half_made`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cllm.engine.buffers import Entry, Flat, Layout
from cllm.engine.compact import Mixed, Shared
from cllm.engine.dispatch import Kernels
from cllm.model.layout import MATRIX, hidden_matrix
from cllm.model.step import Sums
from cllm.training.groups import rules
from cllm.training.optimiser import update_tensor
from cllm.training.state import State


class Fused:
    """The sink of a step in this mode; `arm` it before each step that is to update the weights.

    half_made: the last step stopped after it had updated some tensors.
    """

    def __init__(self, state: State, kernels: Kernels) -> None:
        self._state, self._kernels = state, kernels
        self._lr: float | None = None
        self._scale, self.squares = 1.0, 0.0
        layout = state.model.layout
        self.takes = frozenset(entry.name for entry in layout.entries if entry.group == MATRIX)
        self.done: set[str] = set()
        self._halted = False

    def arm(self, lr: float) -> None:
        """The rate of the next step."""
        self._lr = lr
        self.done, self.squares, self._halted = set(), 0.0, False

    @property
    def half_made(self) -> bool:
        return self._halted and bool(self.done)

    def buffers(self, room: Tensor) -> Mixed:
        """The gradient buffers; the matrices of the layers in `room` when it is large enough."""
        layout, device = self._state.model.layout, room.device
        vectors = Flat(layout.only(lambda entry: entry.group != MATRIX), torch.float32, device)
        outer = [entry for entry in layout.entries if entry.group == MATRIX and not hidden_matrix(entry.name)]
        held = Layout([max(outer, key=lambda entry: entry.size)])  # embedding and output matrix take turns
        table = Flat(held, torch.bfloat16, device)
        turns = [Flat(Layout([entry]), torch.bfloat16, device, room=table.data) for entry in outer]
        together: list[list[Entry]] = []
        for entry in layout.entries:
            if hidden_matrix(entry.name):
                if entry.joined:
                    together[-1].append(entry)
                else:
                    together.append([entry])
        layouts = [Layout(entries) for entries in together]
        most = max(each.total for each in layouts)
        own = [vectors, table]
        if room.numel() < most:
            own.append(Flat(max(layouts, key=lambda each: each.total), torch.float32, device))
            room = own[-1].data
        turns += [Flat(each, torch.float32, device, room=room) for each in layouts]
        self._gradients = Shared(layout, [vectors, *turns], own)
        return self._gradients

    def begin(self, sums: Sums) -> None:
        """The logits are used up. A loss that is not finite: no update."""
        self._scale = 1.0 / max(sums.valid, 1)
        self._halted = self._halted or not math.isfinite(sums.loss)

    def complete(self, *names: str) -> None:
        """Update the matrices among these tensors."""
        found = rules(self._state.config, self._state.model.layout)
        matrices = [name for name in names if name in self.takes]
        for name in matrices:
            gradient = self._gradients[name]
            if self._lr is not None and not self._halted:
                square = self._kernels.sum_of_squares(gradient.view(-1))
                if not math.isfinite(square):
                    self.squares, self._halted = square, True
                    break
                self.squares += square
                update_tensor(self._state, self._kernels, name, found[name], gradient, self._lr, self._scale)
                self.done.add(name)
        if "head.w" in matrices:  # where it was is now the embedding's, which is added to
            self._gradients["tok"].zero_()
