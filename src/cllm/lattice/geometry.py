"""The tokens of a vocabulary as points of the lattice: primes, coordinates, classes, neighbours; table and picture."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cllm.errors import DomainError, MissingExtraError
from cllm.lattice.angles import FloatArray
from cllm.lattice.embedding import Classes, symmetry_classes, token_coordinates
from cllm.lattice.picture.palette import hexadecimal, wheel_colours
from cllm.lattice.picture.scene import Dots, Scene
from cllm.lattice.sieve import IntArray
from cllm.lattice.tokens import token_prime


class Geometry(NamedTuple):
    """One row a token: primes [V], xyz [V, 3], classes [V], neighbours [V, k] (ids, nearest first) and how far they
    are, distances [V, k]."""

    primes: IntArray
    xyz: FloatArray
    classes: IntArray
    neighbours: IntArray
    distances: FloatArray

    def place(self, i: int) -> dict[str, Any]:
        """Token i as plain values."""
        return {
            "id": i,
            "prime": int(self.primes[i]),
            "x": float(self.xyz[i, 0]),
            "y": float(self.xyz[i, 1]),
            "z": float(self.xyz[i, 2]),
            "class": int(self.classes[i]),
            "neighbours": self.neighbours[i].tolist(),
        }


def token_geometry(vocab: int, *, neighbours: int = 5, classes: Classes = "id") -> Geometry:
    """The geometry of tokens 0 … vocab−1; neighbours are the nearest in (x, y, z), by a k-d tree (SciPy, an extra).

    Raises DomainError for sizes that cannot be, MissingExtraError without SciPy where neighbours are wanted.
    """
    if neighbours < 0 or (neighbours and neighbours >= vocab):
        raise DomainError(f"token_geometry: neighbours: got {neighbours}, expected 0 to {vocab - 1} for {vocab} tokens")
    xyz, ids = token_coordinates(vocab), np.arange(vocab, dtype=np.int64)
    near = np.empty((vocab, neighbours), dtype=np.int64)
    far = np.empty((vocab, neighbours))
    if neighbours:
        try:
            from scipy.spatial import KDTree
        except ImportError:
            raise MissingExtraError("neighbours of tokens", "pip install 'cllm[geometry]'") from None
        distances, found = KDTree(xyz).query(xyz, k=neighbours + 1)
        # the nearest is the point itself (coordinates differ from token to token: √i grows)
        near, far = found[:, 1:].astype(np.int64), np.asarray(distances[:, 1:], dtype=np.float64)
    return Geometry(token_prime(ids), xyz, symmetry_classes(ids, classes), near, far)


def write_geometry(path: str | Path, geometry: Geometry, tokens: Sequence[str]) -> None:
    """The table as .csv or .jsonl, whole or not at all: id, token, prime, x, y, z, class, neighbours."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise DomainError(f"write_geometry: the name must end in .csv or .jsonl, got {path.name!r}")
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        if kind == ".csv":
            table.writerow(["id", "token", "prime", "x", "y", "z", "class", "neighbours"])
        for i, token in enumerate(tokens):
            row = {"id": i, "token": token, **geometry.place(i)}
            if kind == ".jsonl":
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            else:
                table.writerow([*list(row.values())[:-1], " ".join(map(str, row["neighbours"]))])
    os.replace(temporary, path)


def token_scene(geometry: Geometry, title: str) -> Scene:
    """The tokens from above (x, y), coloured by symmetry class: a Vogel spiral, the first token in the middle."""
    count = len(geometry.primes)
    x, y = geometry.xyz[:, 0], geometry.xyz[:, 1]
    reach = float(np.hypot(x, y).max()) or 1.0
    wheel = wheel_colours(12)
    radius = np.full(count, min(0.012, 0.36 / np.sqrt(count)) / 2)
    return Scene(
        title=title,
        caption=f"{count:,} tokens; token i at radius sqrt(i), angle i times the golden angle",
        legend=tuple((str(s), hexadecimal(colour)) for s, colour in enumerate(wheel)),
        dots=Dots(
            np.arange(count, dtype=np.int64),
            x / reach,
            y / reach,
            radius,
            wheel[geometry.classes],
            np.zeros(count, dtype=np.bool_),
        ),
        parameters={"map": "tokens", "count": count},
    )
