"""The Lattice screen's routes, all below /api/lattice/. The work is done in the studio's pool of child processes."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cllm.errors import DomainError
from cllm.studio.lattice_colours import SCHEMES, Colouring, palette
from cllm.studio.lattice_curves import CURVES, Options, curve, least_of
from cllm.studio.lattice_formula import formula, known
from cllm.studio.lattice_values import MAX_N
from cllm.studio.web import compute, json, query

TILE_SECONDS = 10.0
FACTOR_SECONDS = 20.0
_TILES = "cllm.studio.lattice_tiles"
_NUMBER = "cllm.studio.lattice_number"
_EXPORT = "cllm.studio.lattice_export"


class Picture(msgspec.Struct, frozen=True):
    """What every picture's address says: the curve, its settings, the colouring."""

    curve: str = "ulam"
    start: int = 1
    modulus: int = 30
    lap: int = 0
    fx: str = Options().x
    fy: str = Options().y
    polar: bool = False
    first: int = 1
    count: int = 20_000
    colour: str = "prime"
    residue: int = 12
    expression: str = Colouring().expression
    low: float = 0.0
    high: float = 1.0
    null: int | None = None
    odd: bool = False
    theme: str = "dark"
    dot: float = 1.0

    def options(self) -> dict[str, Any]:
        """For `Options`; a mistake in a formula is said here."""
        if self.curve == "formula":
            formula(self.fx)
            formula(self.fy)
        made = Options(self.start, self.modulus, self.lap, self.fx, self.fy, self.polar, self.first, self.count)
        return msgspec.structs.asdict(made)

    def colouring(self) -> dict[str, Any]:
        """For `Colouring`."""
        if self.colour == "expression":
            formula(self.expression)
        null = None if self.null is None else self.null % (1 << 32)
        return msgspec.structs.asdict(
            Colouring(self.colour, self.residue, self.expression, self.low, self.high, null, self.odd)
        )


class TileQuery(Picture, frozen=True):
    """Which tile of the picture."""

    level: int = 0
    i: int = 0
    j: int = 0


async def about(request: Request) -> Response:
    """GET /api/lattice: the curves, colourings, names for formulas, limits."""
    curves = [
        {"name": c.name, "title": c.title, "rule": c.rule, "kind": c.kind, "least": c.least, "home": c.home}
        for c in CURVES.values()
    ]
    return json({"curves": curves, "colours": SCHEMES, "names": known(), "most": MAX_N})


async def tile(request: Request) -> Response:
    """GET /api/lattice/tile: 256·256 pixels of RGBA."""
    asked = query(request, TileQuery)
    curve(asked.curve)
    parts = {
        "curve": asked.curve, "level": asked.level, "i": asked.i, "j": asked.j, "options": asked.options(),
        "colouring": asked.colouring(), "theme": asked.theme, "dot": asked.dot,
    }  # fmt: skip
    pixels = await compute(request, f"{_TILES}:tile", seconds=TILE_SECONDS, tile=parts)
    # the address holds everything that the pixels depend on, for as long as this server runs
    headers = {"cache-control": "private, max-age=600"}
    return Response(pixels, media_type="application/octet-stream", headers=headers)


async def legend(request: Request) -> Response:
    """GET /api/lattice/legend: title and colours of a colouring."""
    asked = query(request, Picture)
    c = msgspec.convert(asked.colouring(), Colouring)
    found = palette(c.scheme, asked.theme, c.modulus, c.low, c.high)
    title = c.expression if c.scheme == "expression" else found.title
    return json({"title": title, "entries": [{"label": a, "colour": b} for a, b in found.legend]})


class ScaleQuery(msgspec.Struct, frozen=True):
    expression: str
    near: int = 1


async def scale(request: Request) -> Response:
    """GET /api/lattice/scale: a scale that suits an expression near a number."""
    asked = query(request, ScaleQuery)
    formula(asked.expression)
    if not 0 <= asked.near <= MAX_N:
        raise DomainError(f"near: expected 0 … 10^12, got {asked.near}")
    low, high = await compute(request, "cllm.studio.lattice_colours:scale_of", text=asked.expression, near=asked.near)
    return json({"low": low, "high": high})


async def home(request: Request) -> Response:
    """GET /api/lattice/home: the first view of a curve: centre and width."""
    asked = query(request, Picture)
    chosen = curve(asked.curve)
    x, y, width = chosen.home
    if chosen.name == "formula":
        x, y, width = await compute(request, "cllm.studio.lattice_curves:own_home_of", options=asked.options())
    least = least_of(chosen, msgspec.convert(asked.options(), Options))
    return json({"x": x, "y": y, "width": width, "least": least})


class PointQuery(Picture, frozen=True):
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0


async def at(request: Request) -> Response:
    """GET /api/lattice/at: the number at a point of the world (n null where there is none)."""
    asked = query(request, PointQuery)
    curve(asked.curve)
    found = await compute(
        request, f"{_NUMBER}:at", name=asked.curve, options=asked.options(), x=asked.x, y=asked.y, scale=asked.scale
    )
    return json(found)


class NumberQuery(Picture, frozen=True):
    n: str = "1"


async def number(request: Request) -> Response:
    """GET /api/lattice/number: everything about n that is known at once."""
    return json(await compute(request, f"{_NUMBER}:number", text=query(request, NumberQuery).n))


async def factors(request: Request) -> Response:
    """GET /api/lattice/factors: the factors of a large n, within a deadline."""
    asked = query(request, NumberQuery)
    return json(await compute(request, f"{_NUMBER}:factors", seconds=FACTOR_SECONDS, text=asked.n))


async def place(request: Request) -> Response:
    """GET /api/lattice/place: where n lies in the world of a curve."""
    asked = query(request, NumberQuery)
    curve(asked.curve)
    return json(await compute(request, f"{_NUMBER}:place", text=asked.n, name=asked.curve, options=asked.options()))


async def value(request: Request) -> Response:
    """GET /api/lattice/value: the colouring's expression at n, proven."""
    asked = query(request, NumberQuery)
    return json(await compute(request, f"{_NUMBER}:value_at", text=asked.n, expression=asked.expression))


class QuadraticQuery(Picture, frozen=True):
    a: int = 1
    b: int = 1
    c: int = 41
    t: int = 0
    terms: int = 1000


async def quadratic(request: Request) -> Response:
    """GET /api/lattice/quadratic: values a·t² + b·t + c with places and primes."""
    q = query(request, QuadraticQuery)
    curve(q.curve)
    return json(
        await compute(
            request, "cllm.studio.lattice_overlay:quadratic", a=q.a, b=q.b, c=q.c, name=q.curve,
            options=q.options(), first=q.t, terms=q.terms,
        )
    )  # fmt: skip


class DiagonalQuery(Picture, frozen=True):
    n: int = 41
    slope: int = 1


async def diagonal(request: Request) -> Response:
    """GET /api/lattice/diagonal: the quadratic of the diagonal of Ulam's spiral through n."""
    q = query(request, DiagonalQuery)
    return json(await compute(request, "cllm.studio.lattice_overlay:diagonal", n=q.n, slope=q.slope, start=q.start))


class ViewQuery(Picture, frozen=True):
    x0: float = -10.0
    y0: float = -10.0
    x1: float = 10.0
    y1: float = 10.0
    width: int = 1000
    height: int = 1000


async def export(request: Request) -> Response:
    """GET /api/lattice/export.svg and .csv: the numbers of a view."""
    q = query(request, ViewQuery)
    curve(q.curve)
    kind = request.path_params["kind"]
    view = {
        "curve": q.curve, "x0": q.x0, "y0": q.y0, "x1": q.x1, "y1": q.y1, "width": q.width, "height": q.height,
        "options": q.options(), "colouring": q.colouring(), "theme": q.theme, "dot": q.dot,
    }  # fmt: skip
    if kind not in ("svg", "csv"):
        raise DomainError(f"export: expected svg or csv, got {kind}")
    text = await compute(request, f"{_EXPORT}:{kind}", view=view)
    media = {"svg": "image/svg+xml", "csv": "text/csv"}[kind]
    headers = {"content-disposition": f'attachment; filename="{q.curve}.{kind}"'}
    return Response(text, media_type=media, headers=headers)


async def folded(request: Request) -> Response:
    """GET /api/lattice/folded: the folded clock's points."""
    q = query(request, Picture)
    found = await compute(
        request, f"{_EXPORT}:folded", start=q.start, count=q.count, colouring=q.colouring(), theme=q.theme
    )
    return json(found)


class SpaceQuery(msgspec.Struct, frozen=True):
    kind: str = "FCC"
    basis: str = "1 0 0 0 1 0 0 0 1"
    rows: str = "0 1 2"
    layer: int = 3
    shift: int = 0
    reach: float = 2.0


def _integers(what: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()[:9]]
    except ValueError:
        raise DomainError(f"{what}: expected integers separated by blanks, got {text[:60]!r}") from None


async def space(request: Request) -> Response:
    """GET /api/lattice/space: a lattice in three dimensions."""
    q = query(request, SpaceQuery)
    flat = _integers("basis", q.basis)
    basis = [flat[i : i + 3] for i in (0, 3, 6)]
    found = await compute(
        request, "cllm.studio.lattice_space:space", kind=q.kind, basis=basis, rows=_integers("rows", q.rows),
        layer=q.layer, shift=q.shift, reach=q.reach,
    )  # fmt: skip
    return json(found)


routes: list[BaseRoute] = [
    Route("/api/lattice", about),
    Route("/api/lattice/tile", tile),
    Route("/api/lattice/legend", legend),
    Route("/api/lattice/scale", scale),
    Route("/api/lattice/home", home),
    Route("/api/lattice/at", at),
    Route("/api/lattice/number", number),
    Route("/api/lattice/factors", factors),
    Route("/api/lattice/place", place),
    Route("/api/lattice/value", value),
    Route("/api/lattice/quadratic", quadratic),
    Route("/api/lattice/diagonal", diagonal),
    Route("/api/lattice/folded", folded),
    Route("/api/lattice/space", space),
    Route("/api/lattice/export.{kind}", export),
]
