"""From logits to the next token: penalties, filters and a draw that a seed repeats exactly.

The order, each step on the result of the one before:

1. repetition penalty r on tokens seen so far: l/r where l > 0, else l·r (Keskar et al. 2019, with the sign
   mended as in common use);
2. temperature t, once: l/t; t = 0 is greedy, the largest logit, ties to the lower id, and ends here;
3. top-k: the k largest logits, ties to the lower id;
4. top-p on the softmax of what is left (Holtzman et al. 2020): the shortest run of the most likely tokens
   whose sum reaches p; a token stays when the sum before it is below p, so the likeliest always stays;
5. min-p: tokens of at least min_p times the likeliest one's probability.

Arithmetic is float64 on the CPU. The draw inverts the distribution function over the kept tokens *in the
order of their ids*, so filters that remove nothing change nothing. Its uniform number comes from Philox4x32-10
with the seed as the key and (sequence, position) as the counter: it depends on nothing else, neither on a
batch nor on earlier draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from cllm.engine.philox import philox
from cllm.errors import NonFiniteError, UsageError

_MASK = 0xFFFFFFFF
_FEW = 1024
_PURPOSE = 0x73616D70  # counter word 3: apart from the dropout masks of any layer


class SamplingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the next token is chosen; checked when made (UsageError).

    temperature: ≥ 0, 0 is greedy; top_k: 0 is off; top_p: in (0, 1], 1 is off; min_p: in [0, 1], 0 is off;
    repetition_penalty: > 0, 1 is off, above it repeats less; seed: 0 … 2⁶⁴ − 1.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        def need(ok: bool, name: str, expected: str) -> None:
            if not ok:
                raise UsageError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

        real = {"temperature", "top_p", "min_p", "repetition_penalty"}
        for name in self.__struct_fields__:
            kinds = (int, float) if name in real else (int,)
            value = getattr(self, name)
            right = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
            need(right, name, "a number" if name in real else "a whole number")
        need(self.temperature >= 0, "temperature", "a number ≥ 0 (0 is greedy)")
        need(self.top_k >= 0, "top_k", "a whole number ≥ 0 (0 is off)")
        need(0 < self.top_p <= 1, "top_p", "a probability in (0, 1] (1 is off)")
        need(0 <= self.min_p <= 1, "min_p", "a fraction in [0, 1] (0 is off)")
        need(self.repetition_penalty > 0, "repetition_penalty", "a number > 0 (1 is off)")
        need(0 <= self.seed < 2**64, "seed", "a whole number from 0 to 2⁶⁴ − 1")


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token.

    id: the token; surprise: −log₂ of its probability under the model itself, the softmax of the logits
    before any penalty or filter, in bits; ids, probabilities: the distribution it was drawn from, as kept
    token ids (rising) and float64 probabilities that sum to 1 (greedy: the one token).
    """

    id: int
    surprise: float
    ids: Tensor
    probabilities: Tensor


def sample(
    logits: Tensor,
    options: SamplingOptions,
    *,
    position: int,
    sequence: int = 0,
    seen: Iterable[int] | Tensor = (),
) -> Choice:
    """Chooses the next token.

    logits: [V], any float type and device; −∞ forbids a token. position: the place of the new token in its
    sequence, sequence: which one of a batch (both below 2³²); together with the seed they fix the draw.
    seen: token ids that the repetition penalty acts on, repeats allowed.

    Raises NonFiniteError for NaN or +∞ and when every token is forbidden.
    """
    row = _checked(logits)
    ids, probabilities = distribution(row, options, seen=seen)
    if len(ids) == 1:
        place = 0
    else:
        total = torch.cumsum(probabilities, 0)
        u = uniform(options.seed, position, sequence) * float(total[-1])
        place = min(int(torch.searchsorted(total, u, right=True)), len(ids) - 1)
    chosen = int(ids[place])
    surprise = float(torch.logsumexp(row, 0) - row[chosen]) / math.log(2)
    return Choice(chosen, max(0.0, surprise), ids, probabilities)


def sample_batch(
    logits_BV: Tensor,
    options: SamplingOptions,
    *,
    position: int | Sequence[int],
    seen: Sequence[Iterable[int] | Tensor] | None = None,
) -> list[Choice]:
    """`sample` for each row of [B, V]; row b is sequence b, at its own position when several are given."""
    rows = len(logits_BV)
    positions = [position] * rows if isinstance(position, int) else list(position)
    before: Sequence[Iterable[int] | Tensor] = [()] * rows if seen is None else seen
    if len(positions) != rows or len(before) != rows:
        raise UsageError(f"sample_batch: {rows} rows, but {len(positions)} positions and {len(before)} histories")
    return [
        sample(logits_BV[row], options, position=positions[row], sequence=row, seen=before[row]) for row in range(rows)
    ]


def distribution(
    logits: Tensor, options: SamplingOptions, *, seen: Iterable[int] | Tensor = ()
) -> tuple[Tensor, Tensor]:
    """What the options leave of [V] logits: kept ids (rising) and their float64 probabilities, summing to 1."""
    row = penalised(_checked(logits), options.repetition_penalty, seen)
    if options.temperature == 0:
        # argmax promises nothing about ties; the first of the largest does.
        best = torch.nonzero(row == row.max())[0]
        return best, torch.ones(1, dtype=torch.float64)
    row = (row - row.max()) / options.temperature
    ids = torch.nonzero(row > -math.inf).flatten()
    if 0 < options.top_k < len(ids):
        ids = ids[_largest(row[ids], options.top_k)]
    if options.top_p < 1:
        ids = ids[_nucleus(row[ids], options.top_p)]
    if options.min_p > 0:
        # p ≥ min_p·p_max in logarithms, where the largest is 0
        ids = ids[row[ids] >= math.log(options.min_p)]
    return ids, torch.softmax(row[ids], 0)


def penalised(logits: Tensor, penalty: float, seen: Iterable[int] | Tensor) -> Tensor:
    """The logits with the repetition penalty on `seen`; the input is not changed."""
    if penalty == 1:
        return logits
    ids = torch.as_tensor(seen if isinstance(seen, Tensor) else list(seen), dtype=torch.int64).unique().cpu()
    if not len(ids):
        return logits
    if ids[0] < 0 or ids[-1] >= len(logits):
        raise UsageError(f"seen: expected token ids in 0 … {len(logits) - 1}, got {int(ids[0])} … {int(ids[-1])}")
    values = logits[ids]
    return logits.index_copy(0, ids, torch.where(values > 0, values / penalty, values * penalty))


def _largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest, ties to the first, rising. (topk alone does not say which of equals it takes.)"""
    edge = torch.topk(values, k).values[-1]
    above = values > edge
    level = torch.nonzero(values == edge).flatten()[: k - int(above.sum())]
    above[level] = True
    return torch.nonzero(above).flatten()


def _nucleus(values: Tensor, top_p: float) -> Tensor:
    """Places of the shortest run of the largest whose probability reaches top_p, rising."""
    weights = torch.exp(values - values.max())
    goal = top_p * float(weights.sum())
    head = torch.arange(len(values))
    if len(values) > 4 * _FEW:  # sorting all of a large vocabulary costs more than the rest together
        few = torch.nonzero(values >= torch.topk(values, _FEW).values[-1]).flatten()
        head = few if float(weights[few].sum()) >= goal else head
    order = head[torch.sort(values[head], descending=True, stable=True).indices]
    before = torch.cumsum(weights[order], 0) - weights[order]
    kept = before < goal
    kept[0] = True
    return torch.sort(order[kept]).values


def _checked(logits: Tensor) -> Tensor:
    if logits.ndim != 1 or not len(logits):
        raise UsageError(f"logits: expected one row [V], got shape {tuple(logits.shape)}")
    row = logits.detach().to("cpu", torch.float64)
    largest = float(row.max())
    if not math.isfinite(largest):  # max hands NaN on
        what = "every token is forbidden" if largest == -math.inf else f"logits contain {largest}"
        raise NonFiniteError(f"sampling: {what}: expected finite logits, with −∞ only for forbidden tokens")
    return row


def uniform(seed: int, position: int, sequence: int = 0) -> float:
    """A number in [0, 1) of 53 random bits, a pure function of its arguments (seed < 2⁶⁴, others < 2³²)."""
    if not (0 <= position <= _MASK and 0 <= sequence <= _MASK and 0 <= seed < 2**64):
        raise UsageError(f"uniform: out of range: seed={seed}, position={position}, sequence={sequence}")
    c0, c1, c2, c3 = torch.tensor([position, sequence, 0, _PURPOSE], dtype=torch.int64, device="cpu")
    high, low, _, _ = philox((seed & _MASK, seed >> 32), (c0, c1, c2, c3))
    return ((int(high) >> 5) * 2**26 + (int(low) >> 6)) / 2**53
