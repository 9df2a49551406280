"""How likely a model finds given continuations of given contexts: the base of multiple choice and of lm-eval.

score(context, continuation) = Σ log p(token | everything before it), in nats (≤ 0), through the one evaluation step.
Both texts are encoded together and the tokens behind those of the context alone are scored, as in the
Language Model Evaluation Harness (Gao et al. 2021). An empty context is the start token. What is
longer than the model's context keeps its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cllm.errors import DataError
from cllm.model.batch import Batch
from cllm.model.model import Model
from cllm.model.step import Step
from cllm.text import Tokenizer


@dataclass(frozen=True)
class Continuation:
    """log p in nats of all scored tokens, how many they are, whether each was the likeliest one, and whether the
    context had to be cut."""

    nats: float
    tokens: int
    greedy: bool
    cut: bool


class Scorer:
    """Scores continuations with one model; rows of a batch hold one pair each.

    batch: rows at a time.  Raises DataError for a continuation that has no token, or more than the context holds.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, *, batch: int = 16) -> None:
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self._steps: dict[int, Step] = {}

    def score(
        self, pairs: Sequence[tuple[str, str]], progress: Callable[[int, int], None] | None = None
    ) -> list[Continuation]:
        """The continuations' scores, in order; pairs of like length share a batch."""
        encoded = [self._encode(context, continuation) for context, continuation in pairs]
        found = self._run([(ids, count) for ids, count, _ in encoded], progress)
        return [
            Continuation(nats, count, greedy, cut)
            for (nats, greedy), (_, count, cut) in zip(found, encoded, strict=True)
        ]

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """log p in nats of each whole text, on its own: windows as long as the context, each token predicted once,
        the last window with a full context."""
        longest = self.model.config.context
        windows: list[tuple[list[int], int]] = []
        owner: list[int] = []
        for number, text in enumerate(texts):
            ids = [self._start(), *self.tokenizer.encode(text)]
            at = 1  # the next token to predict
            while at < len(ids):
                stop = min(at + longest, len(ids))
                windows.append((ids[max(0, stop - longest - 1) : stop], stop - at))
                owner.append(number)
                at = stop
        sums = [0.0] * len(texts)
        for number, (nats, _) in zip(owner, self._run(windows), strict=True):
            sums[number] += nats
        return sums

    def _run(
        self, rows: Sequence[tuple[list[int], int]], progress: Callable[[int, int], None] | None = None
    ) -> list[tuple[float, bool]]:
        """For each (tokens, count): log p of the last `count` tokens, and whether each was the likeliest."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        found: dict[int, tuple[float, bool]] = {}
        for at in range(0, len(order), self.batch):
            part = order[at : at + self.batch]
            step = self._step(len(rows[part[0]][0]) - 1)
            tokens = torch.zeros(len(part), step.sequence + 1, dtype=torch.int64)
            documents = torch.full_like(tokens, -1)
            for row, i in enumerate(part):
                ids = rows[i][0]
                tokens[row, : len(ids)] = torch.tensor(ids)
                documents[row, : len(ids)] = 0
            result = step.evaluate(Batch(tokens, documents))
            for row, i in enumerate(part):
                ids, count = rows[i]
                scored = slice(len(ids) - 1 - count, len(ids) - 1)
                nats = -float(result.losses_BT[row, scored].sum(dtype=torch.float64))
                found[i] = (nats, bool((result.ranks_BT[row, scored] == 0).all()))
            if progress:
                progress(len(found), len(rows))
        return [found[i] for i in range(len(rows))]

    def _start(self) -> int:
        t = self.tokenizer
        start = t.bos_id if t.eos_id is None else t.eos_id
        if start is None:
            raise DataError("an empty context needs a tokenizer with an EOS or BOS token, which starts a text")
        return start

    def _encode(self, context: str, continuation: str) -> tuple[list[int], int, bool]:
        """Tokens (start token, context, continuation), how many of them to score, whether the context was cut."""
        longest = self.model.config.context
        before = self.tokenizer.encode(context) if context else []
        ids = self.tokenizer.encode(context + continuation)
        if not before:
            ids = [self._start(), *ids]
        count = len(ids) - max(len(before), 1)
        if count < 1:
            raise DataError(f"the continuation {continuation!r} of {context[-40:]!r} has no token of its own to score")
        if count > longest:
            raise DataError(f"the continuation {continuation[:40]!r}… has {count} tokens; the context holds {longest}")
        return ids[-longest - 1 :], count, len(ids) > longest + 1

    def _step(self, sequence: int) -> Step:
        """Buffers for rows of at least `sequence` inputs; lengths are rounded up so that few are made."""
        length = min(self.model.config.context, -(-sequence // 64) * 64)
        if length not in self._steps:
            self._steps.clear()
            self._steps[length] = Step(self.model, self.batch, length, gradients=False)
        return self._steps[length]
