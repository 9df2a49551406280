"""The token embedding as a cloud in space: its three widest directions, and who is near whom.

Principal components of the rows of `tok`, in float64: the eigenvectors of their covariance with the largest
eigenvalues. Neighbours are by the cosine in the whole width, not in the picture.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cllm.data.prepare import open_prepared
from cllm.errors import CllmError, NonFiniteError, UsageError
from cllm.lattice import symmetry_classes
from cllm.lattice.tokens import token_prime
from cllm.studio.generate_work import Loaded, loaded
from cllm.text.usage import shown as token_name
from cllm.training.run import DATA_FOLDER

MOST = 3000  # tokens that are drawn
NEAR = 12
COUNTED = 50_000_000  # tokens of the training data that are counted
_PIECE = 1 << 22


def components(e_VD: Tensor) -> tuple[Tensor, Tensor]:
    """(coordinates float64 [V, 3], shares of the variance [3]) in the three widest directions, each turned so that its
    largest entry is positive. Raises NonFiniteError."""
    e = e_VD.detach().to("cpu", torch.float64)
    if not bool(e.isfinite().all()):
        raise NonFiniteError("the token embedding holds values that are no numbers, so it has no picture; take an "
                             "earlier checkpoint")  # fmt: skip
    centred = e - e.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(e))
    values, vectors = values.flip(0)[:3].clamp(min=0), vectors.flip(1)[:, :3]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    found = torch.zeros(len(e), 3, dtype=torch.float64)
    found[:, : vectors.shape[1]] = centred @ (vectors * torch.where(largest < 0, -1.0, 1.0))
    whole = float(centred.square().sum()) / len(e)
    shares = torch.zeros(3, dtype=torch.float64)
    shares[: len(values)] = values / whole if whole > 0 else 0.0
    return found, shares


@lru_cache(maxsize=4)
def _counts(folder: str, vocab: int) -> NDArray[np.int64] | None:
    """How often each token comes in the run's training data; None where it is not there any more."""
    try:
        tokens = open_prepared(Path(folder) / DATA_FOLDER, verify=False).train.tokens[:COUNTED]
    except (CllmError, OSError):
        return None
    found = np.zeros(vocab, dtype=np.int64)
    for i in range(0, len(tokens), _PIECE):
        found += np.bincount(tokens[i : i + _PIECE], minlength=vocab)[:vocab]
    return found


_placed: tuple[Loaded, tuple[Tensor, Tensor]] | None = None


def _places(held: Loaded) -> tuple[Tensor, Tensor]:
    global _placed
    if _placed is None or _placed[0] is not held:
        _placed = held, components(held.model.params["tok"])
    return _placed[1]


def cloud(folder: str, checkpoint: str) -> dict[str, Any]:
    """The tokens that are drawn (the commonest, where there are more than MOST), each with its text, place, norm, count
    in the training data, prime, and its classes: id mod 12 and prime mod 12."""
    held = loaded(folder, checkpoint)
    xyz, shares = _places(held)
    vocab = len(xyz)
    counts = _counts(folder, vocab)
    ids = np.arange(vocab)
    if vocab > MOST:
        ids = np.sort(np.argsort(-counts, kind="stable")[:MOST] if counts is not None else ids[:MOST])
    norms = held.model.params["tok"].double().norm(dim=1)
    c = held.model.config
    return {
        "vocab": vocab,
        "width": c.width,
        "shares": shares.tolist(),
        "classes_of": c.symmetry_classes,
        "ids": ids.tolist(),
        "texts": [token_name(held.tokenizer, int(i)) for i in ids],
        "xyz": xyz[ids].tolist(),
        "norms": norms[ids].tolist(),
        "counts": counts[ids].tolist() if counts is not None else None,
        "primes": token_prime(ids).tolist(),
        "id_classes": symmetry_classes(ids, "id").tolist(),
        "prime_classes": symmetry_classes(ids, "prime").tolist(),
    }


def near(folder: str, checkpoint: str, asked: str) -> dict[str, Any]:
    """A token and its neighbours by cosine. asked: its text, `#12` for its number, or a part of its text.

    Raises UsageError when there is none. others: more tokens whose text holds what was asked.
    """
    held = loaded(folder, checkpoint)
    token, others = find(held, asked)
    xyz, _ = _places(held)
    e = held.model.params["tok"].detach().to("cpu", torch.float64)
    norms = e.norm(dim=1)
    cosines = (e @ e[token]) / (norms * norms[token]).clamp(min=torch.finfo(torch.float64).tiny)
    order = [int(i) for i in cosines.argsort(descending=True, stable=True)[: NEAR + 1] if int(i) != token][:NEAR]

    def tell(i: int) -> dict[str, Any]:
        return {"id": i, "text": token_name(held.tokenizer, i), "xyz": xyz[i].tolist()}

    return {
        **tell(token),
        "norm": float(norms[token]),
        "prime": int(token_prime(token)),
        "near": [tell(i) | {"cosine": float(cosines[i])} for i in order],
        "others": [tell(i) for i in others],
    }


def find(held: Loaded, asked: str) -> tuple[int, list[int]]:
    """The token that is meant, and others whose text holds what was asked."""
    vocab = held.model.config.vocab
    if asked.startswith("#") and asked[1:].isdecimal():
        token = int(asked[1:])
        if token >= vocab:
            raise UsageError(f"{asked}: this vocabulary has the tokens #0 … #{vocab - 1}")
        return token, []
    texts = [token_name(held.tokenizer, i) for i in range(vocab)]
    small = asked.lower()
    hits = [i for i, text in enumerate(texts) if asked and small in text.lower()]
    # the text itself, then without regard to spaces and case, then the shortest that holds it
    hits.sort(key=lambda i: (texts[i] != asked, texts[i].strip() != asked.strip(), len(texts[i]), i))
    if not hits:
        raise UsageError(f"no token holds {asked!r}; give a part of its text, or its number as in #12")
    return hits[0], hits[1 : NEAR + 1]
