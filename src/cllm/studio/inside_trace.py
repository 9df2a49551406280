"""One text through a checkpoint: the real forward pass, watched; attention maps and the logit lens from what it left.

The pass is the one of training and generation (`cllm.model.forward`) with a probe behind every op. Attention weights
are not kept by it, nor by any flash attention; they are calculated again from its queries and keys, by the project's
attention with the identity in the place of the values: A·I = A. The logit lens (nostalgebraist, 2020) reads the
residual stream behind each layer as if it were the last one: final norm, head, softmax.
"""

from __future__ import annotations

import base64
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cllm.data.prepare import open_prepared
from cllm.engine.attention import Blocks, attention_forward
from cllm.engine.dispatch import Kernels, select
from cllm.errors import CllmError, LimitError, UsageError
from cllm.model.activations import Activations
from cllm.model.batch import Batch, Derived, derive
from cllm.model.forward import Pass, forward
from cllm.model.model import Model
from cllm.studio.generate_work import Loaded, begin, loaded
from cllm.studio.inside_tensors import summary
from cllm.text.usage import shown as token_name
from cllm.training.run import DATA_FOLDER

MOST = 256  # tokens of a text that are read
LONGEST = 1 << 16  # characters of a text
SHOWN = 8  # likeliest tokens of a place
THUMBNAIL = 40  # pixels of a head's small picture
ROWS = 64  # rows of logits at a time
SAMPLE = 64  # tokens of the run's own text


@dataclass
class Trace:
    """What a pass over one row of T tokens left.

    statistics: of each op's result, in order.  qkv_T3D: by layer, rotary positions applied.  stream_TD: the residual
    stream before layer 0 and behind each layer.  bias: classes and table, where attention has a bias by them.
    """

    model: Model
    kernels: Kernels
    ids: list[int]
    asked: int
    derived: Derived
    statistics: list[dict[str, Any]] = field(default_factory=list)
    qkv_T3D: list[Tensor] = field(default_factory=list)
    stream_TD: list[Tensor] = field(default_factory=list)
    heads_TD: list[Tensor] = field(default_factory=list)
    bias: tuple[Tensor, Tensor] | None = None

    def see(self, layer: int | None, op: str, result: Tensor) -> None:
        """The probe: what stands behind one op."""
        if op == "attn.qkv":
            for part, third in zip("qkv", result.chunk(3, dim=1), strict=True):
                self._add(layer, f"attn.{part}", third)
        else:
            self._add(layer, op, result)

    def _add(self, layer: int | None, op: str, result: Tensor) -> None:
        self.statistics.append({"layer": layer, "op": op, "shape": list(result.shape)} | summary(result))

    def attention(self, layer: int) -> Tensor:
        """The attention of all heads of a layer: probabilities [H, T, T], exactly 0 at forbidden keys."""
        c, t = self.model.config, len(self.ids)
        qkv = self.qkv_T3D[layer]
        wide = torch.float64 if qkv.dtype == torch.float64 else torch.float32
        q, k, _ = qkv.to(wide).view(1, t, 3, c.heads, c.head_width).permute(2, 0, 3, 1, 4).contiguous()
        identity = torch.eye(t, dtype=wide, device=q.device).expand(1, c.heads, t, t).contiguous()
        out, lse = torch.empty_like(identity), q.new_empty(1, c.heads, t)
        blocks = Blocks(1, c.heads, t, t, backward=False, dtype=wide, device=q.device)
        options = {"documents_BT": self.derived.documents_BT, "bias": self.bias}
        attention_forward(q, k, identity, out, lse, blocks, **options)  # type: ignore[arg-type]
        return out[0].cpu()

    def logits(self, place: int, rows: slice) -> Tensor:
        """Final norm and head on the residual stream number `place`: [rows, V]."""
        x, p = self.stream_TD[place][rows].contiguous(), self.model.params
        n = x.new_empty(x.shape, dtype=self.model.operand)
        statistics = x.new_empty(x.shape[0], 1), x.new_empty(x.shape[0], 1)
        self.kernels.layernorm_forward(x, p["lnf.g"], p["lnf.b"], n, *statistics)
        z = x.new_empty(x.shape[0], self.model.config.vocab)
        self.kernels.linear_forward(n, self.model.operands[self.model.head], None, z, None)
        return z.cpu()


def read(model: Model, ids: list[int], documents: list[int], *, document_mask: bool) -> Trace:
    """Run the model over one row of tokens and keep what it left. documents: the number of each token's document."""
    ids, asked = ids[: min(MOST, model.config.context)], len(ids)
    t = len(ids)
    batch = Batch.of([[*ids, 0]], [[*documents[:t], -1]])
    kernels = select(model.operand, model.config.activation, model.device)
    trace = Trace(model, kernels, ids, asked, derive(batch, document_mask, model.device))
    acts = Activations(model, kernels, 1, t, keep=True)
    run = Pass(model, kernels, acts, documents_BT=trace.derived.documents_BT, see=trace.see)
    forward(run, trace.derived.inputs_BT, trace.derived.positions_BT)
    trace.bias = run.bias
    trace.qkv_T3D = [layer.qkv_N3D for layer in acts.layers]
    trace.heads_TD = [layer.heads_ND for layer in acts.layers]
    trace.stream_TD = [*(layer.x_ND for layer in acts.layers), acts.last_ND]
    z = torch.cat([trace.logits(-1, slice(i, i + ROWS)) for i in range(0, t, ROWS)])
    trace.statistics.append({"layer": None, "op": "head", "shape": list(z.shape)} | summary(z))
    return trace


# --------------------------------------------------------------------------------- in the process that holds the models

_kept: tuple[Loaded, str, Trace] | None = None
_reading = threading.Lock()


def _traced(folder: str, checkpoint: str, text: str) -> tuple[Loaded, Trace]:
    """The pass over a text; the last one is kept."""
    global _kept
    if len(text) > LONGEST:
        raise LimitError(f"the text has {len(text):,} characters; at most {LONGEST:,} can be looked at")
    held = loaded(folder, checkpoint)
    text = text or sample(held)
    with _reading:
        if _kept is None or _kept[0] is not held or _kept[1] != text:
            _kept = None  # its memory first
            ids, documents = cut(held, text)
            _kept = held, text, read(held.model, ids, documents, document_mask=held.run.config.data.document_mask)
        return held, _kept[2]


def sample(held: Loaded) -> str:
    """The beginning of the run's validation text (its training text, where it has none); empty where it is gone."""
    try:
        data = open_prepared(held.run.path / DATA_FOLDER, verify=False)
    except (CllmError, OSError):
        return ""
    ids = (data.val or data.train).tokens[: min(SAMPLE, held.model.config.context)].tolist()
    return held.tokenizer.decode(ids, show_special=True).rstrip("\ufffd")


def cut(held: Loaded, text: str) -> tuple[list[int], list[int]]:
    """Tokens and the number of the document of each. The name of the end token, `<eos>` say, ends a document."""
    tokenizer = held.tokenizer
    end = tokenizer.eos_id
    parts = text.split(tokenizer.token(end)) if end is not None else [text]
    ids: list[int] = []
    documents: list[int] = []
    for number, part in enumerate(parts):
        more = list(tokenizer.encode(part)) if part else []
        if end is not None and number + 1 < len(parts):
            more.append(end)
        ids += more
        documents += [number] * len(more)
    if not ids:
        ids = begin(tokenizer, "")
        documents = [0] * len(ids)
    return ids, documents


def trace(folder: str, checkpoint: str, text: str) -> dict[str, Any]:
    """The text's tokens, and the statistics of every op's result.

    text: as it was given, or the run's own.  tokens: [id, text, document, position].  asked: tokens of the text.
    nats: the loss of each place whose next token is a target, else None.  end: the name of the token that ends a
    document.
    """
    held, found = _traced(folder, checkpoint, text)
    of, d = held.tokenizer, found.derived
    documents = d.documents_BT[0].tolist() if d.documents_BT is not None else None
    positions = d.positions_BT[0].tolist() if d.positions_BT is not None else list(range(len(found.ids)))
    return {
        "checkpoint": held.run.checkpoint.name,
        "kernels": found.kernels.name,
        "text": text or sample(held),
        "tokens": [
            [i, token_name(of, i), documents[k] if documents else 0, positions[k]] for k, i in enumerate(found.ids)
        ],
        "asked": found.asked,
        "context": found.model.config.context,
        "masked": documents is not None,
        "end": None if of.eos_id is None else of.token(of.eos_id),
        "ops": found.statistics,
        "nats": _nats(found),
    }


def _nats(found: Trace) -> list[float | None]:
    targets = found.derived.targets_BT[0].tolist()
    losses: list[float | None] = []
    for first in range(0, len(targets), ROWS):
        z = found.logits(-1, slice(first, first + ROWS)).double()
        whole = torch.logsumexp(z, 1)
        for row, target in enumerate(targets[first : first + ROWS]):
            losses.append(float(whole[row] - z[row, target]) if target >= 0 else None)
    return losses


def attention(folder: str, checkpoint: str, text: str, layer: int, head: int) -> bytes:
    """One head's map, float32 little-endian, T × T, row by row: query by query."""
    _, found = _traced(folder, checkpoint, text)
    c = found.model.config
    if not 0 <= layer < c.layers or not 0 <= head < c.heads:
        raise UsageError(f"layer {layer}, head {head}: this model has {c.layers} layers of {c.heads} heads")
    return bytes(found.attention(layer)[head].numpy().astype("<f4").tobytes())


def heads(folder: str, checkpoint: str, text: str) -> Iterator[dict[str, Any]]:
    """Every head of every layer, small: a picture (bytes of √A, each the largest of its square) and where it looks.

    previous, first, own: mean weight on the token before, on the document's first token and on the token itself, over
    the queries that see another token; entropy: of the weights in nats, mean over the same.
    """
    _, found = _traced(folder, checkpoint, text)
    t = len(found.ids)
    documents = found.derived.documents_BT
    starts = _starts(documents[0].tolist() if documents is not None else [0] * t)
    queries = [i for i in range(t) if starts[i] < i]
    for layer in range(found.model.config.layers):
        a_HTT = found.attention(layer).double()
        told = []
        for a in a_HTT:
            rows = a[queries]
            at = torch.arange(len(queries))
            one = torch.tensor(queries, dtype=torch.int64)
            first = torch.tensor([starts[i] for i in queries], dtype=torch.int64)
            entropy = -torch.xlogy(rows, rows).sum(1)
            means = [_mean(x) for x in (rows[at, one - 1], rows[at, first], rows[at, one], entropy)]
            told.append(dict(zip(("previous", "first", "own", "entropy"), means, strict=True)))
        pictures = [base64.b64encode(thumbnail(a)).decode() for a in a_HTT]
        yield {"layer": layer, "size": min(t, THUMBNAIL), "pictures": pictures, "heads": told}


def _mean(x: Tensor) -> float | None:
    return float(x.mean()) if x.numel() else None


def _starts(documents: list[int]) -> list[int]:
    """The place of the first token of each token's document."""
    found: list[int] = []
    for i, document in enumerate(documents):
        found.append(found[-1] if i and documents[i - 1] == document else i)
    return found


def thumbnail(a_TT: Tensor) -> bytes:
    """A map as at most THUMBNAIL² bytes: 255·√ of the largest weight in each square."""
    t = a_TT.shape[0]
    size = min(t, THUMBNAIL)
    edges = [math.floor(i * t / size) for i in range(size + 1)]
    a = a_TT.nan_to_num(0.0).numpy()
    small = np.maximum.reduceat(np.maximum.reduceat(a, edges[:-1], axis=0), edges[:-1], axis=1)
    return bytes(np.rint(255 * np.sqrt(small)).astype(np.uint8).tobytes())


def lens(folder: str, checkpoint: str, text: str) -> Iterator[dict[str, Any]]:
    """What each place of the residual stream would say next, from the last layer down to the embedding.

    at: how many layers the stream has behind it.  For each token: top (ids) and p (their probabilities), entropy in
    nats; next: [probability, rank from 0] of the token that comes, None where none does.  texts: of the ids, once.
    """
    held, found = _traced(folder, checkpoint, text)
    targets = found.derived.targets_BT[0].tolist()
    told: set[int] = set()
    for at in range(len(found.stream_TD) - 1, -1, -1):
        top: list[list[int]] = []
        p: list[list[float]] = []
        entropy: list[float] = []
        coming: list[list[float] | None] = []
        for begin_ in range(0, len(targets), ROWS):
            probabilities = torch.softmax(found.logits(at, slice(begin_, begin_ + ROWS)).double(), 1)
            best = probabilities.topk(min(SHOWN, probabilities.shape[1]), dim=1)
            top += best.indices.tolist()
            p += best.values.tolist()
            entropy += (-torch.xlogy(probabilities, probabilities).sum(1) + 0.0).tolist()
            for row, target in zip(probabilities, targets[begin_ : begin_ + ROWS], strict=True):
                rank = int((row > row[target]).sum()) if target >= 0 else 0
                coming.append([float(row[target]), rank] if target >= 0 else None)
        new = {i for row in top for i in row} - told
        told |= new
        texts = {str(i): token_name(held.tokenizer, i) for i in new}
        yield {"at": at, "top": top, "p": p, "entropy": entropy, "next": coming, "texts": texts}
