"""Read a picture back from its file, and check what it says: an Ulam pixel is the colour of a prime iff n is prime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cllm.errors import CorruptError
from cllm.lattice.picture.palette import ACCENT
from cllm.lattice.picture.raster import pillow
from cllm.lattice.primality import are_prime


class ReadBack(NamedTuple):
    """n: the integers of a cell picture; colours: uint8 [count, 3], the colour of all pixels of each cell."""

    n: NDArray[np.int64]
    colours: NDArray[np.uint8]
    parameters: dict[str, Any]


def read_cells(path: str | Path) -> ReadBack:
    """The integers and colours of an Ulam or Hilbert PNG written by `save_png`.

    Raises:
        CorruptError: no such picture, or a cell whose pixels are not all alike.
    """
    from cllm.lattice.hilbert_curve import hilbert
    from cllm.lattice.square_spiral import ulam

    images, *_ = pillow()
    with images.open(path) as image:
        text = image.info.get("cllm")
        pixels = np.asarray(image.convert("RGB"))
    about = json.loads(text) if text else {}
    if about.get("map") not in ("ulam", "hilbert"):
        raise CorruptError(f"{path}: expected an Ulam or Hilbert picture with its parameters in the text `cllm`")
    cell, plot, left, top = (int(about[key]) for key in ("cell", "plot", "left", "top"))
    side = plot // cell
    block = pixels[top : top + plot, left : left + plot].reshape(side, cell, side, cell, 3)
    grid = block[:, 0, :, 0]
    if not np.array_equal(block, np.broadcast_to(grid[:, None, :, None], block.shape)):
        raise CorruptError(f"{path}: the pixels of a cell differ")
    if about["map"] == "ulam":
        index = np.arange(1, side * side + 1, dtype=np.int64)
        x, y = ulam(index)
        column, row, n = x + side // 2, side // 2 - y, index - 1 + about["start"]
    else:
        index = np.arange(side * side, dtype=np.int64)
        x, y = hilbert(index, side.bit_length() - 1)
        column, row, n = x, side - 1 - y, index + about["start"]
    return ReadBack(n, grid[row, column], about)


def check_primes(path: str | Path) -> int:
    """Check a picture coloured by primality: the number of cells checked.

    Raises:
        CorruptError: a pixel has the primes' colour and its number is not prime, or the other way round.
    """
    read = read_cells(path)
    if read.parameters.get("colour") != "prime":
        raise CorruptError(f"{path}: expected a picture coloured by prime, got {read.parameters.get('colour')!r}")
    shown = (read.colours == ACCENT).all(-1)
    wrong = np.flatnonzero(shown != are_prime(read.n))
    if wrong.size:
        says = "prime" if shown[wrong[0]] else "not prime"
        raise CorruptError(f"{path}: the pixel of {int(read.n[wrong[0]])} says {says}, which is wrong")
    return int(read.n.size)
