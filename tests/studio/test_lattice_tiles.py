"""Tiles against the Python maps, pixel by pixel; colourings against sympy; the golden inverse against a search."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import DomainError, LimitError
from cllm.lattice import spirals, ulam, ulam_inverse
from cllm.lattice.picture.palette import ACCENT
from cllm.studio import lattice_values as values
from cllm.studio.lattice_colours import NOTHING, Colouring, classify, palette, scale_of
from cllm.studio.lattice_curves import CURVES, HILBERT_ORDER, Options, least_of, own_home
from cllm.studio.lattice_tiles import SIZE, Tile, centres, render, tile

GRID = ("ulam", "hilbert")


def primes_in(image: np.ndarray) -> np.ndarray:
    return (image[..., :3] == ACCENT).all(-1) & (image[..., 3] > 0)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (-1, 0), (0, -1), (3, -5), (1950, 1900), (-1953, 17)])
def test_every_pixel_of_an_ulam_tile(i: int, j: int) -> None:
    image = render(Tile("ulam", 0, i, j))
    for row, column in np.random.default_rng(i * i + abs(j)).integers(0, SIZE, (400, 2)):
        n = ulam_inverse(int(i * SIZE + column), int((j + 1) * SIZE - 1 - row))
        shown = bool(primes_in(image)[row, column])
        assert shown == (n <= 10**12 and sympy.isprime(n)), n


def test_a_number_stands_where_the_map_puts_it() -> None:
    """From the number to the pixel, through the forward map: not the inverse that made the tile."""
    for n in (2, 3, 41, 997, 65_537, 999_999_999_989):
        x, y = ulam(n)
        i, j = x // SIZE, y // SIZE
        image = render(Tile("ulam", 0, i, j))
        assert primes_in(image)[(j + 1) * SIZE - 1 - y, x - i * SIZE], n


def test_hilbert_tile() -> None:
    from cllm.lattice import hilbert

    image = render(Tile("hilbert", 0, 0, 0, Options(start=0)))
    x, y = hilbert(np.arange(SIZE * SIZE), HILBERT_ORDER)
    assert int(x.max()) == int(y.max()) == SIZE - 1
    shown = primes_in(image)[SIZE - 1 - y, x]
    assert np.array_equal(shown, values.are_prime(np.arange(SIZE * SIZE)))
    outside = render(Tile("hilbert", 0, -1, 0, Options(start=0)))
    assert not outside[..., 3].any()


@pytest.mark.parametrize("level", [1, 2])
def test_a_coarse_pixel_is_the_mean_of_its_numbers(level: int) -> None:
    k = 1 << level
    image = render(Tile("ulam", level, 2, 3, colouring=Colouring("residue", 12)))
    colours = palette("residue", "dark", 12).colours.astype(np.float64)
    for row, column in [(0, 0), (5, 77), (255, 255), (128, 3)]:
        a = np.arange(2 * SIZE * k + column * k, 2 * SIZE * k + column * k + k)
        top = (4 * SIZE) * k - row * k
        grid = np.meshgrid(a, np.arange(top - k, top))
        n = np.asarray(ulam_inverse(*grid)).ravel()
        mean = colours[classify(n, Colouring("residue", 12)).code].mean(0)
        assert np.abs(image[row, column] - mean).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["sacks", "vogel", "crystalline", "wheel", "ring-clock"])
def test_pixels_of_round_curves(name: str) -> None:
    """In a prime's own pixel its colour, at full strength; half-way to the next number none of it."""
    chosen, level = CURVES[name], -5
    for n in (5, 7, 101, 211, 997):
        o = Options(start=0)
        x, y = (float(v[0]) for v in chosen.place(np.array([n]), o))
        side = SIZE * 2.0**level
        i, j = int(np.floor(x / side)), int(np.floor(y / side))
        image = render(Tile(name, level, i, j, o))
        column, row = int((x - i * side) / 2.0**level), int(((j + 1) * side - y) / 2.0**level)
        assert primes_in(image)[row, column], (name, n)
        assert image[row, column, 3] == 255


@pytest.mark.parametrize("name", ["archimedes", "clock-abacus", "crystalline-prime", "formula"])
def test_pixels_of_scattered_points(name: str) -> None:
    chosen = CURVES[name]
    level = {"archimedes": 0, "clock-abacus": -13, "crystalline-prime": -6, "formula": -4}[name]
    o = Options()
    index = np.array([1009 if name != "crystalline-prime" else 50])
    x, y = (float(v[0]) for v in chosen.place(index, o))
    side = SIZE * 2.0**level
    i, j = int(np.floor(x / side)), int(np.floor(y / side))
    image = render(Tile(name, level, i, j, o))
    column, row = int((x - i * side) / 2.0**level), int(((j + 1) * side - y) / 2.0**level)
    assert image[row, column, 3] > 128
    assert primes_in(image)[row, column]


@given(st.integers(1, 10**12), st.sampled_from(["sacks", "crystalline", "vogel", "wheel", "ring-clock", *GRID]))
def test_inverses_undo_the_maps(n: int, name: str) -> None:
    chosen, o = CURVES[name], Options(start=1)
    if name == "sacks" and n > 1 << 40:
        n >>= 3
    x, y = chosen.place(np.array([n]), o)
    if name in GRID:
        found = chosen.inverse(np.floor(x).astype(np.int64), np.floor(y).astype(np.int64), o)
    else:
        found = chosen.inverse(x, y, o)
    assert int((found.n if chosen.kind == "sectors" else found)[0]) == n


@pytest.mark.parametrize(("name", "reach", "most"), [("vogel", 40.0, 4000), ("crystalline", 7.0, 4000)])
def test_golden_inverse_against_a_search(name: str, reach: float, most: int) -> None:
    """Within a dot the found number is the nearest one; between dots one of its neighbours."""
    rng = np.random.default_rng(3)
    angle, radius = rng.random(4000) * 2 * np.pi, reach * np.sqrt(rng.random(4000))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    chosen, o = CURVES[name], Options()
    found = chosen.inverse(x, y, o)
    every = np.arange(max(chosen.least, 0), most)
    px, py = chosen.place(every, o)
    distance = np.hypot(np.subtract.outer(x, px), np.subtract.outer(y, py))
    nearest = every[distance.argmin(1)]
    size = chosen.radius(np.maximum(nearest, 1).astype(np.float64))
    inside = distance.min(1) <= size
    assert np.array_equal(found[inside], nearest[inside])
    assert inside.mean() > 0.3
    fx, fy = chosen.place(found, o)
    assert (np.hypot(fx - x, fy - y) <= 1.5 * distance.min(1)).all()


def test_tiles_fit_together() -> None:
    """A tile and its four children show the same numbers: pixel centres of the parent lie between theirs."""
    parent = render(Tile("wheel", -3, 1, 1))
    child = render(Tile("wheel", -4, 2, 3))  # the upper left quarter
    shrunk = child.reshape(128, 2, 128, 2, 4).astype(np.float64).mean((1, 3))
    same = np.abs(parent[:128, :128].astype(np.float64) - shrunk).max(-1) < 40
    assert same.mean() > 0.9


def test_centres() -> None:
    x, y = centres(Tile("sacks", -2, 3, -2))
    assert x[0, 0] == 3 * 64 + 0.125
    assert y[0, 0] == -64 - 0.125
    assert y[-1, 0] == -128 + 0.125


def test_bytes_and_limits() -> None:
    asked = msgspec.to_builtins(Tile("ulam", 0, 0, 0))
    assert tile(asked) == render(Tile("ulam", 0, 0, 0)).tobytes()
    for wrong in ({"level": 99}, {"i": 1 << 60}, {"dot": 0.0}):
        with pytest.raises((DomainError, msgspec.ValidationError)):
            render(msgspec.structs.replace(Tile("sacks", 0, 0, 0), **wrong))
    with pytest.raises(DomainError, match="below level 0"):
        render(Tile("ulam", -1, 0, 0))
    with pytest.raises(DomainError, match="did you mean"):
        render(Tile("ulan", 0, 0, 0))


@pytest.mark.parametrize("name", ["ulam", "hilbert", "sacks", "vogel", "crystalline", "wheel", "ring-clock"])
@pytest.mark.parametrize(("level", "i"), [(40, 1 << 50), (40, -(1 << 50)), (26, 5000), (12, 1 << 45)])
def test_beyond_the_last_number_there_is_nothing(name: str, level: int, i: int) -> None:
    assert not render(Tile(name, level, i, i))[..., 3].any()


@pytest.mark.parametrize("name", ["sacks", "vogel", "ulam"])
def test_the_whole_seen_from_far_away(name: str) -> None:
    """All 10¹² numbers in a few pixels: a disc or a square about the origin, and nothing round it."""
    image = render(Tile(name, 13, -1, 0))
    shown = image[..., 3] > 0
    assert shown[-40:, -40:].mean() > 0.08  # four numbers a pixel at least, one in 28 a prime
    assert not shown[:128].any() and not shown[:, :128].any()


def test_far_out_there_is_nothing() -> None:
    assert not render(Tile("ulam", 0, 10**6, 0))[..., 3].any()
    assert not render(Tile("wheel", 0, 1 << 45, 0))[..., 3].any()


@pytest.mark.parametrize("low", [0, 1, 2, 10_000, 2**21 - 30, 2**25 - 30, 999_999_999_900])
def test_values_against_sympy(low: int) -> None:
    n = np.arange(low, low + 60)
    table = values.factors(n)
    assert values.are_prime(n).tolist() == [bool(sympy.isprime(int(v))) for v in n]
    for k, v in enumerate(n.tolist()):
        if v < 1:
            continue
        found = sympy.factorint(v)
        assert table.big_omega[k] == sum(found.values())
        assert table.omega[k] == len(found)
        assert table.least[k] == min(found, default=1)
        assert table.mobius[k] == int(sympy.mobius(v))
    totients = values.totients(n)
    assert totients.tolist() == [int(sympy.totient(v)) if v else 0 for v in n.tolist()]
    gaps = values.prime_gaps(n, values.are_prime(n))
    expected = [int(sympy.nextprime(v)) - v if sympy.isprime(v) else 0 for v in n.tolist()]
    assert gaps.tolist() == expected


def test_values_of_scattered_numbers() -> None:
    n = np.random.default_rng(1).integers(1, 10**12, 200)
    for v, big, least in zip(n.tolist(), values.factors(n).big_omega, values.factors(n).least, strict=True):
        found = sympy.factorint(v)
        assert (big, least) == (sum(found.values()), min(found, default=1))


@pytest.mark.parametrize("odd", [False, True])
def test_null_model_has_the_density(odd: bool) -> None:
    """Its count lies within six standard deviations of Σ p, its lots depend on n and the seed alone."""
    n = np.arange(10**9, 10**9 + 200_000)
    found = values.null_primes(n, 5, odd)
    p = np.where(n % 2 == 1, 2 / np.log(n), 0.0) if odd else 1 / np.log(n)
    assert abs(int(found.sum()) - p.sum()) < 6 * np.sqrt((p * (1 - p)).sum())
    assert np.array_equal(found[1000:2000], values.null_primes(n[1000:2000], 5, odd))
    assert not np.array_equal(found, values.null_primes(n, 6, odd))
    assert not odd or not found[n % 2 == 0].any()


def test_null_model_is_not_the_primes_in_a_tile() -> None:
    plain = render(Tile("ulam", 0, 0, 0))
    null = render(Tile("ulam", 0, 0, 0, colouring=Colouring(null=1)))
    assert not np.array_equal(plain, null)
    assert 0.8 < (null[..., 3] > 0).sum() / (plain[..., 3] > 0).sum() < 1.25


def test_classes() -> None:
    n = np.array([-1, 0, 1, 2, 3, 4, 12, 30, 97])
    assert classify(n, Colouring("Omega")).code.tolist() == [NOTHING, 0, 0, 1, 1, 2, 3, 3, 1]
    assert classify(n, Colouring("mu")).code.tolist()[2:] == [2, 0, 0, 1, 1, 0, 0]
    assert classify(n, Colouring("residue", 5)).code.tolist()[3:] == [2, 3, 9, 7, 5, 2]
    expression = classify(n, Colouring("expression", expression="1/(n-4)", low=0, high=1))
    assert expression.code[5] == NOTHING
    assert expression.code[7] == round(199 / 26)


def test_scales() -> None:
    assert scale_of("is_prime(n)", 1) == (0, 1)
    low, high = scale_of("n % 100", 1)
    assert 0 <= low < high <= 99
    with pytest.raises(DomainError, match="no finite value"):
        scale_of("sqrt(-n)", 1)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("scheme", ["prime", "Omega", "omega", "mu", "least", "residue", "gap", "expression"])
def test_palettes_cover_every_class(scheme: str, theme: str) -> None:
    shades = palette(scheme, theme)
    code = classify(np.arange(0, 5000), Colouring(scheme, expression="n % 50", high=50)).code
    assert (shades.colours[code[2:]][:, 3] == 255).any()
    assert tuple(shades.colours[NOTHING]) == (0, 0, 0, 0)
    assert shades.legend


def test_own_formula() -> None:
    o = Options(x="n", y="n^2", first=1, count=50)
    points = CURVES["formula"].within((0, 0, 10.5, 200), o)
    assert points.n.tolist() == list(range(1, 11))
    assert points.y.tolist() == [float(v * v) for v in range(1, 11)]
    x, y, width = own_home(o)
    assert 0 < x < 51 and 0 < y < 2500 and width > 49
    with pytest.raises(DomainError, match="no finite point"):
        own_home(Options(x="sqrt(-n)", y="n"))
    with pytest.raises(LimitError, match="zoom in"):
        CURVES["archimedes"].within((-1e9, -1e9, 1e9, 1e9), o)


def test_least_numbers() -> None:
    assert least_of(CURVES["ulam"], Options(start=41)) == 41
    assert least_of(CURVES["crystalline"], Options()) == 1
    assert spirals.ring(81) == 4
