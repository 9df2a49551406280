"""`cllm lattice`: evaluate the lattice formula with proven digits; draw and animate the maps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from cllm.errors import DataError, UsageError

app = App(
    name="lattice",
    help="The crystalline lattice: its formula with proven digits, and pictures of its maps.",
    help_epilogue="""\
Examples:

  cllm lattice eval 10 12 7 --digits 50
  cllm lattice draw ulam --out ulam.png""",
    help_format="plaintext",
)

Integer = Annotated[int, Parameter(allow_leading_hyphen=True)]


@app.command(name="eval")
def evaluate(
    n: int,
    d: int = 12,
    k: Integer = 0,
    /,
    *,
    name: str = "dub",
    omega: str = "432",
    psi: tuple[int, int] = (2, 1),
    digits: int = 30,
    entropy: Literal["ratio", "strict", "upstream"] = "ratio",
    exponent: Literal["offset", "theta"] = "offset",
    phonetic_shift: bool = False,
    simple: bool = False,
    json: bool = False,
) -> int:
    """L(n, d, k, λ, ω, ψ) and every part of it; every printed digit is proven.

    Examples:

      cllm lattice eval 10 12 7 --digits 50

      cllm lattice eval 5 12 2 --name seven --omega 528 --psi 4 3

    Parameters
    ----------
    n: int
        The index, from 1.
    d: int
        The depth, 0 to 12.
    k: int
        The turn, any integer.
    name: str
        λ: a name (dub, seven, twelve …) or an integer.
    omega: str
        ω: a positive number of Hz, also as a fraction.
    psi: tuple[int, int]
        ψ: two coprime numbers of opposite parity, the larger first.
    digits: int
        Significant digits.
    entropy: str
        The form of Γ(n,d): ratio, strict or upstream.
    exponent: str
        3^O (offset) or 3^θ (theta).
    phonetic_shift: bool
        Shift the table φ by ν.
    simple: bool
        Without Λ and Ψ.
    json: bool
        Print one JSON object; numbers in it are text.
    """
    from cllm.errors import LimitError
    from cllm.lattice.formula import Formula
    from cllm.numbers import Ball, precision

    if not 1 <= digits <= 100_000:
        raise LimitError(f"lattice eval: digits is from 1 to 100000, got {digits}")
    lam: str | int = int(name) if name.lstrip("+-").isdecimal() else name
    form = Formula(entropy=entropy, exponent=exponent, phonetic_shift=phonetic_shift, simple=simple)
    with precision(int(digits * 3.33) + 32):
        parts = form.parts(n, d, k, lam, omega, psi)

    def show(value: Any) -> str:
        if isinstance(value, Ball):
            return value.digits(digits)
        return str(value)

    named: dict[str, Any] = {
        "L": parts.value,
        "O": parts.offset,
        "theta": parts.theta,
        "gamma_k": parts.gamma_k,
        "nu": parts.nu,
        "Lambda": parts.Lambda,
        "Psi": parts.Psi,
        "H": parts.entropy,
        "Gamma": parts.gamma_nd,
        **{f"cos_{i}": c for i, c in enumerate(parts.cosines, start=1)},
    }
    shown = {key: show(value) for key, value in named.items() if value is not None}
    if json:
        given = {"n": n, "d": d, "k": k, "lambda": lam, "omega": omega, "psi": list(psi), "digits": digits}
        _json({**given, **shown})
        return 0
    labels = {"theta": "θ", "gamma_k": "Γ(k)", "nu": "ν", "Lambda": "Λ", "Psi": "Ψ", "Gamma": "Γ(n,d)"}
    for key, value in shown.items():
        label = f"cos θφ_{key[4:]}" if key.startswith("cos_") else labels.get(key, key)
        print(f"{label:<9} {value}")
    return 0


@app.command
def draw(
    map: str = "ulam",
    /,
    *,
    out: Path | None = None,
    count: int | None = None,
    start: int | None = None,
    colour: str | None = None,
    modulus: int = 30,
    step: float | None = None,
    size: int = 1000,
    json: bool = False,
) -> int:
    """Draw a map of the integers as PNG or SVG.

    Maps: ulam, hilbert (one cell a number), sacks, vogel, archimedes, logarithmic, crystalline, crystalline-prime,
    wheel, ring-clock, clock-abacus, folded-clock, map-361, torus, sphere. A PNG of cells coloured by prime is read
    back from the file and every cell checked: its colour is the primes' exactly when its number is prime.

    Examples:

      cllm lattice draw ulam --out ulam.png

      cllm lattice draw vogel --colour mu --count 5000 --out vogel.svg

      cllm lattice draw wheel --modulus 12 --out wheel.png

    Parameters
    ----------
    map: str
        The map.
    out: Path
        The file, .png or .svg; MAP.png where not given.
    count: int
        How many integers (ulam rounds up to an odd square, hilbert to a power of four).
    start: int
        The first integer.
    colour: str
        prime, Omega (factors with multiplicity), omega (distinct factors), mu (Möbius), least (factor), residue, gap;
        by itself prime, and gap for crystalline-prime.
    modulus: int
        The modulus of the wheel and of the residues.
    step: float
        Radians a step, for archimedes and logarithmic.
    size: int
        Pixels of the plot's side.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.picture import check_primes, save, scene

    path = out or Path(f"{map}.png")
    picture = scene(map, count=count, start=start, scheme=colour, modulus=modulus, step=step)
    _write(lambda: save(picture, path, size), path)
    checked = None
    if picture.cells is not None and picture.parameters["colour"] == "prime" and path.suffix.lower() == ".png":
        checked = check_primes(path)
    if json:
        _json({"file": str(path), **picture.parameters, "checked": checked})
    else:
        note = f"; read back: {checked:,} cells, each right" if checked is not None else ""
        print(f"{path}: {picture.title}, {picture.count:,} numbers{note}")
    return 0


@app.command
def animate(
    map: str = "ring-clock",
    /,
    *,
    out: Path | None = None,
    count: int | None = None,
    start: int | None = None,
    colour: str | None = None,
    modulus: int = 30,
    frames: int = 60,
    milliseconds: int = 60,
    size: int = 560,
    json: bool = False,
) -> int:
    """Let a map grow number by number, as GIF or APNG; the ring clock shows ring after ring with its hand.

    Examples:

      cllm lattice animate ring-clock --out rings.gif

      cllm lattice animate ulam --count 2500 --frames 50 --out ulam.apng

    Parameters
    ----------
    map: str
        The map, as for draw.
    out: Path
        The file, .gif, .apng or .png; MAP.gif where not given.
    count: int
        How many integers in the last frame.
    start: int
        The first integer.
    colour: str
        The colouring, as for draw.
    modulus: int
        The modulus of the wheel and of the residues.
    frames: int
        How many frames, 2 to 600.
    milliseconds: int
        How long a frame lasts.
    size: int
        Pixels of the plot's side.
    json: bool
        Print one JSON object.
    """
    from cllm.lattice.picture import save_animation, scene

    path = out or Path(f"{map}.gif")
    picture = scene(map, count=count, start=start, scheme=colour, modulus=modulus)
    _write(lambda: save_animation(picture, path, frames=frames, size=size, duration=milliseconds), path)
    if json:
        _json({"file": str(path), **picture.parameters, "frames": frames})
    else:
        print(f"{path}: {picture.title}, {picture.count:,} numbers in {frames} frames")
    return 0


@app.command
def tokens(
    run: Path,
    /,
    *,
    out: Path | None = None,
    picture: Path | None = None,
    neighbours: int = 5,
    classes: Literal["id", "prime"] = "id",
    show: int = 12,
    json: bool = False,
) -> int:
    """The tokens of a run or a tokenizer as points of the lattice: prime, coordinates, class, nearest tokens.

    Examples:

      cllm lattice tokens runs/book --out tokens.csv --picture tokens.png

      cllm lattice tokens tokenizer.json --neighbours 3 --show 20

    Parameters
    ----------
    run: Path
        A run directory, or a tokenizer.json.
    out: Path
        Write the whole table here: .csv or .jsonl.
    picture: Path
        Draw the tokens from above, coloured by class: .svg, or .png (needs Pillow).
    neighbours: int
        Nearest tokens listed for each.
    classes: str
        Symmetry classes: id (id mod 12) or prime (p mod 12, of which primes above 3 fill only four).
    show: int
        Rows to print.
    json: bool
        Print one JSON object: the rows shown.
    """
    import time

    from cllm.lattice.geometry import token_geometry, token_scene, write_geometry
    from cllm.text import Tokenizer

    start = time.perf_counter()
    file = run / "tokenizer.json" if run.is_dir() else run
    if not file.is_file():
        raise DataError(f"{run}: neither a run directory with a tokenizer.json nor a tokenizer file")
    tokenizer = Tokenizer.load(file)
    found = token_geometry(tokenizer.vocab_size, neighbours=neighbours, classes=classes)
    words = [tokenizer.token(i) for i in range(tokenizer.vocab_size)]
    if out is not None:
        _write(lambda: write_geometry(out, found, words), out)
    if picture is not None:
        from cllm.lattice.picture import save

        _write(lambda: save(token_scene(found, f"Tokens of {run.resolve().name}"), picture), picture)
    rows = [{"token": words[i], **found.place(i)} for i in range(min(show, len(words)))]
    if json:
        _json({"tokens": len(words), "rows": rows})
        return 0
    print(f"{'id':>6}  {'token':<16} {'prime':>8} {'x':>9} {'y':>9} {'z':>9}  class  nearest")
    for row in rows:
        near = " ".join(repr(words[i])[1:-1] for i in row["neighbours"])
        word = repr(row["token"])[1:-1]
        place = f"{row['x']:>9.3f} {row['y']:>9.3f} {row['z']:>9.3f}"
        print(f"{row['id']:>6}  {word:<16} {row['prime']:>8} {place}  {row['class']:>5}  {near}")
    written = "".join(f"; {path}" for path in (out, picture) if path is not None)
    print(f"{len(words):,} tokens in {time.perf_counter() - start:.2f} s{written}")
    return 0


def _write(write: Callable[[], None], path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a directory; name a file")
    try:
        write()
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def _json(data: dict[str, Any]) -> None:
    import json

    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    print(json.dumps(data, ensure_ascii=False))
