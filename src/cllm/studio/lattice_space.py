"""Lattices in space: points, shortest vectors, kissing spheres and the Voronoi cell of a basis.

A lattice of rank 3 (or a plane one) is given by its integer Gram matrix, as `cllm.lattice` has it; coordinates come
from the Cholesky factor, or are the rows of the basis itself where it is given in Cartesian integers.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.errors import DomainError, LimitError
from cllm.lattice.bases import named_lattice
from cllm.lattice.enumeration import minimal_vectors, reduce_gram, short_vectors
from cllm.lattice.kissing import kissing_test

MAX_POINTS = 3000
MAX_ENTRY = 50
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CARTESIAN: dict[str, list[list[int]]] = {
    "cubic": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "FCC": [[1, 1, 0], [1, 0, 1], [0, 1, 1]],
    "BCC": [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
}
KINDS = ("cubic", "FCC", "BCC", "A2", "E8", "E8-roots", "own")


def space(
    kind: str, basis: list[list[int]] | None, rows: list[int] | None, layer: int, shift: int, reach: float
) -> dict[str, Any]:
    """A lattice to draw.

    kind: one of KINDS.  basis: of "own", three rows of three integers.  rows: of "E8", the three rows of its basis
    that span the slice; layer: a fourth row, and shift: how many times it is added (0: through the origin).  reach:
    radius of the ball of points, in shortest vectors.

    Returns points, neighbours (kissing centres), basis, cell (vertices, faces), and figures.
    """
    if not 1 <= reach <= 12:
        raise DomainError(f"reach: expected 1 … 12, got {reach}")
    if kind == "E8-roots":
        return _roots()
    gram, frame, offset, height = _frame(kind, basis, rows, layer, shift)
    least, minimal = minimal_vectors(gram)
    found = _points(gram, frame, offset, reach * float(np.sqrt(least)))
    neighbours = minimal @ frame
    rank = len(gram)
    volume = float(np.sqrt(np.linalg.det(gram.astype(np.float64))))
    test = kissing_test(np.asarray(neighbours))
    ball = {2: np.pi, 3: 4 * np.pi / 3}[rank] * (float(np.sqrt(least)) / 2) ** rank
    reduced = reduce_gram(gram)
    cell = voronoi_cell(gram, frame)
    return {
        "kind": kind,
        "rank": rank,
        "points": _rows(found),
        "neighbours": _rows(neighbours),
        "basis": _rows(frame),
        "reduced": _rows(reduced.transform @ frame),
        "gram": gram.tolist(),
        "length": float(np.sqrt(least)),
        "norm": int(least),
        "kissing": len(minimal),
        "touching": test.holds,
        "angle": test.smallest_angle,
        "volume": volume,
        "density": ball / volume,
        "height": height,
        "cell": cell,
    }


def _rows(array: Any) -> list[list[float]]:
    """As lists of three numbers; a plane lattice lies in z = 0."""
    a = np.asarray(array, dtype=np.float64)
    if a.shape[1] < 3:
        a = np.hstack((a, np.zeros((len(a), 3 - a.shape[1]))))
    return [[round(float(v), 9) for v in row] for row in a]


def _frame(
    kind: str, basis: list[list[int]] | None, rows: list[int] | None, layer: int, shift: int
) -> tuple[IntArray, FloatArray, FloatArray, float]:
    """(Gram matrix, coordinates of the basis, the slice's offset in them, its distance from the origin)."""
    if kind in _CARTESIAN or kind == "own":
        b = np.array(_CARTESIAN[kind] if kind != "own" else _own(basis), dtype=np.int64)
        return b @ b.T, b.astype(np.float64), np.zeros(3), 0.0
    if kind == "A2":
        lattice = named_lattice("A2")
        return np.array(lattice.gram, dtype=np.int64), lattice.points(), np.zeros(2), 0.0
    if kind != "E8":
        raise DomainError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return _slice(rows or [0, 1, 2], layer, shift)


def _own(basis: list[list[int]] | None) -> list[list[int]]:
    if basis is None or len(basis) != 3 or any(len(row) != 3 for row in basis):
        raise DomainError("basis: expected three rows of three integers")
    if max(abs(v) for row in basis for v in row) > MAX_ENTRY:
        raise LimitError(f"basis: entries from −{MAX_ENTRY} to {MAX_ENTRY}")
    if round(np.linalg.det(np.array(basis, dtype=np.float64))) == 0:
        raise DomainError("basis: the three rows lie in one plane (determinant 0); change one")
    return basis


def _slice(rows: list[int], layer: int, shift: int) -> tuple[IntArray, FloatArray, FloatArray, float]:
    """The part of E8 in the span of three of its basis rows, or in the parallel plane through shift·row `layer`."""
    if len(set(rows)) != 3 or not all(0 <= r < 8 for r in (*rows, layer)) or layer in rows:
        raise DomainError(f"E8: expected three different rows 0 … 7 and another for the layer, got {rows}, {layer}")
    if abs(shift) > 20:
        raise LimitError(f"shift: expected −20 … 20, got {shift}")
    whole = np.array(named_lattice("E8").gram, dtype=np.int64)
    gram = whole[np.ix_(rows, rows)]
    frame = np.linalg.cholesky(gram.astype(np.float64))
    # where the layer's vector falls in the span, in coordinates of the three rows
    along = np.linalg.solve(gram.astype(np.float64), whole[rows, layer].astype(np.float64))
    square = float(whole[layer, layer] - along @ whole[rows, layer])
    return gram, frame, shift * (along @ frame), abs(shift) * float(np.sqrt(max(square, 0.0)))


def _points(gram: IntArray, frame: FloatArray, offset: FloatArray, radius: float) -> FloatArray:
    """The lattice moved by `offset`, within a ball about the origin; at most MAX_POINTS, the nearest."""
    # the offset is first brought near the origin
    steps = np.linalg.solve(frame.T, offset)
    near = (steps - np.rint(steps)) @ frame
    bound = (radius + float(np.linalg.norm(near))) ** 2
    volume = float(np.sqrt(np.linalg.det(gram.astype(np.float64))))
    expected = 4.2 * bound**1.5 / volume
    if expected > 60_000:
        bound *= (60_000 / expected) ** (2 / 3)
    coefficients = short_vectors(gram, int(bound + 1e-9))
    points = np.vstack((np.zeros((1, len(gram))), coefficients)) @ frame + near
    distance = np.linalg.norm(points, axis=1)
    order = np.argsort(distance, kind="stable")[:MAX_POINTS]
    return np.asarray(points[order][distance[order] <= radius + 1e-9])


def voronoi_cell(gram: IntArray, frame: FloatArray) -> dict[str, Any]:
    """The cell of points nearer to the origin than to any other: vertices, faces (corner numbers in order), volume.

    Its faces belong to the relevant vectors: the shortest of each class of L/2L where ± are the only shortest ones
    (Voronoi 1908; Conway & Sloane, chapter 21).
    """
    rank = len(gram)
    relevant = _relevant(gram) @ frame
    half = np.einsum("ij,ij->i", relevant, relevant) / 2
    corners: list[FloatArray] = []
    for chosen in combinations(range(len(relevant)), rank):
        matrix = relevant[list(chosen)]
        if abs(np.linalg.det(matrix)) < 1e-9:
            continue
        corner = np.linalg.solve(matrix, half[list(chosen)])
        inside = bool(np.all(relevant @ corner <= half * (1 + 1e-9) + 1e-9))
        if inside and not any(np.allclose(corner, seen, atol=1e-7) for seen in corners):
            corners.append(corner)
    vertices = np.array(corners)
    faces = []
    volume = 0.0
    for vector, limit in zip(relevant, half, strict=True):
        on = np.flatnonzero(np.abs(vertices @ vector - limit) < 1e-6 * (1 + limit))
        if len(on) < rank:
            continue
        ordered = _around(vertices, on, vector) if rank == 3 else on
        faces.append([int(v) for v in ordered])
        volume += _pyramid(vertices[ordered], vector)
    return {"vertices": _rows(vertices), "faces": faces, "volume": volume}


def _relevant(gram: IntArray) -> IntArray:
    """Coefficients of the Voronoi-relevant vectors."""
    reduced = reduce_gram(gram)
    small = np.array(list(product(range(-3, 4), repeat=len(gram))), dtype=np.int64)
    small = small[np.any(small != 0, axis=1)]
    norms = np.einsum("ni,ij,nj->n", small, reduced.gram, small)
    classes = (small % 2) @ (1 << np.arange(len(gram)))
    found = []
    for kind in range(1, 1 << len(gram)):
        mine = np.flatnonzero(classes == kind)
        shortest = mine[norms[mine] == norms[mine].min()]
        if len(shortest) == 2:
            found += [small[i] for i in shortest]
    return np.asarray(np.array(found) @ reduced.transform)


def _around(vertices: FloatArray, on: Any, normal: FloatArray) -> Any:
    """Corners of a face in order round its normal."""
    middle = vertices[on].mean(axis=0)
    axis = normal / np.linalg.norm(normal)
    first = vertices[on[0]] - middle
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    spokes = vertices[on] - middle
    return on[np.argsort(np.arctan2(spokes @ second, spokes @ first))]


def _pyramid(corners: FloatArray, normal: FloatArray) -> float:
    """Volume between the origin and a face (area of a triangle with an edge of a plane cell)."""
    if corners.shape[1] == 2:
        (a, b), (c, d) = corners[0], corners[1]
        return abs(float(a * d - b * c)) / 2
    fan = [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    return sum(abs(float(np.linalg.det(np.array(t)))) for t in fan) / 6


def _roots() -> dict[str, Any]:
    """The 240 shortest vectors of E8: in the Coxeter plane (eight rings of thirty), and along a third axis.

    The plane is the one that the Coxeter element, the product of the eight simple reflections, turns by 1/30.
    """
    gram = np.array(named_lattice("E8").gram, dtype=np.int64)
    least, minimal = minimal_vectors(gram)
    simple = simple_roots(minimal, gram)
    frame = np.linalg.cholesky(gram.astype(np.float64))
    step = np.eye(8)
    for root in simple @ frame:
        step = step @ (np.eye(8) - 2 * np.outer(root, root) / (root @ root))
    values, vectors = np.linalg.eig(step)
    turn = [np.argmin(np.abs(values - np.exp(2j * np.pi * m / 30))) for m in (1, 7)]
    axes = []
    for index in turn:
        for part in (vectors[:, index].real, vectors[:, index].imag):
            axes.append(part / np.linalg.norm(part))
    seen = minimal @ frame @ np.array(axes[:3]).T
    inner = minimal @ gram @ minimal.T
    pairs = np.argwhere(np.triu(inner == 1))
    return {
        "kind": "E8-roots",
        "rank": 8,
        "points": _rows(seen),
        "neighbours": [],
        "basis": [],
        "reduced": [],
        "gram": gram.tolist(),
        "length": float(np.sqrt(least)),
        "norm": int(least),
        "kissing": len(minimal),
        "touching": kissing_test(minimal @ frame).holds,
        "angle": 60.0,
        "volume": 1.0,
        "density": float(np.pi**4 / 384),
        "height": 0.0,
        "cell": None,
        "edges": pairs[:: max(1, len(pairs) // 6720)].tolist(),
    }


def simple_roots(roots: IntArray, gram: IntArray) -> IntArray:
    """Eight simple roots: the positive ones (under a general direction) that are no sum of two positive ones."""
    direction = np.array([1.0, np.sqrt(2), np.sqrt(3), np.sqrt(5), np.sqrt(7), np.sqrt(11), np.sqrt(13), np.sqrt(17)])
    positive = roots[roots @ direction[: len(gram)] > 0]
    known = {tuple(row) for row in positive.tolist()}
    sums = {tuple((np.array(a) + np.array(b)).tolist()) for a, b in combinations(known, 2)}
    return np.array(sorted(known - sums), dtype=np.int64)
