"""Formulas, the inspector, overlays, space and exports."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import msgspec
import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from cllm.errors import CllmError, DomainError, LimitError
from cllm.lattice import ulam_inverse
from cllm.numbers.expression import ExpressionError, Sheet
from cllm.studio import lattice_number, lattice_overlay, lattice_space
from cllm.studio.lattice_curves import CURVES, Options
from cllm.studio.lattice_export import View, csv, folded, numbers, svg
from cllm.studio.lattice_formula import Formula, known

NOW = [
    "n^2 + 1", "sqrt(n)*cos(2*pi*phi*n)", "log(n, 3)", "-n // 7 % 5", "2^(n/100)", "n!", "|5 - n|", "gcd(n, 30)",
    "lcm(n, 4)", "is_prime(n^2 + 1)", "moebius(n)", "totient(n)/n", "sigma(n)", "sigma(n, 2)", "frac(n*phi)",
    "min(n, 7) + max(n, 3)", "atan2(n, 3)", "isqrt(n)", "root(n, 3)", "round(n/4)", "zeta_free + 0",
]  # fmt: skip


@pytest.mark.parametrize("text", NOW[:-1])
def test_formulas_agree_with_the_proven_sheet(text: str) -> None:
    """float64 over an array against the exact evaluator, one number at a time."""
    n = np.array([1, 2, 3, 10, 30, 41, 97, 100])
    found = Formula(text)(n)
    for v, value in zip(n.tolist(), found.tolist(), strict=True):
        sheet = Sheet()
        sheet.evaluate(f"n = {v}")
        result = sheet.evaluate(text, 25)
        if result.kind == "truth":
            assert value == (result.text == "true")
            continue
        exact = float(result.text)
        # a dozen roundings of intermediate values no larger than 2πφn
        bound = 24 * 2.0**-53 * max(abs(exact), 1.0) * (1 + 20 * v * ("cos" in text or "frac" in text))
        assert abs(value - exact) <= bound, (v, value, exact)


def test_formulas_of_the_studio_alone() -> None:
    n = np.arange(1, 50)
    assert Formula("Omega(n)")(n).tolist() == [float(sympy.primeomega(v)) for v in n.tolist()]
    assert Formula("omega(n)")(n).tolist() == [float(sympy.primenu(v)) for v in n.tolist()]
    assert Formula("least(n)")(n).tolist() == [float(min(sympy.factorint(v), default=1)) for v in n.tolist()]
    assert Formula("gap(n)")(np.array([2, 3, 7, 8, 23])).tolist() == [1, 2, 4, 0, 6]
    assert np.isnan(Formula("is_prime(n/2)")(np.array([3]))).all()
    assert "totient" in known()


@pytest.mark.parametrize(
    ("text", "message"),
    [("n +", "expected a number"), ("m", "called n"), ("sine(n)", "did you mean"), ("gcd(n)", "1 arguments"),
     ("x = n", "no '='"), ("sin", "write sin"), ("__import__('os')", "unexpected character"),
     ("+".join(["n"] * 300), "at most")],
)  # fmt: skip
def test_wrong_formulas_are_explained(text: str, message: str) -> None:
    with pytest.raises(CllmError, match=message):
        Formula(text)


@given(st.text(alphabet="n0123456789+-*/^%!()|., sqrtcoslgpi", max_size=40))
def test_any_text_is_a_formula_or_an_error_of_ours(text: str) -> None:
    try:
        formula = Formula(text)
    except CllmError:
        return
    assert formula(np.array([1, 2, 50])).shape == (3,)


def test_number_facts() -> None:
    facts = lattice_number.number("144001")
    assert facts["factors"] == [["11", 1], ["13", 1], ["19", 1], ["53", 1]]
    assert (facts["prime"], facts["mobius"], facts["omega"], facts["big_omega"]) == (False, 1, 4, 4)
    assert int(facts["totient"]) == sympy.totient(144001)
    assert int(facts["divisor_sum"]) == sympy.divisor_sigma(144001)
    assert facts["rank"] == sympy.primepi(144001)
    assert int(facts["next"]) == sympy.nextprime(144001)
    prime = lattice_number.number("2^127 - 1")
    assert prime["prime"] is True
    assert prime["n"] == str(2**127 - 1)
    assert prime["shown"] is False
    assert {p["curve"] for p in lattice_number.number("41")["places"]} == {*CURVES, "folded-clock"} - {
        "formula",
        "crystalline-prime",
    }
    assert lattice_number.number("10^400 + 1")["digits"] == 401
    zero, one = lattice_number.number("0"), lattice_number.number("1")
    assert (zero["prime"], one["factors"], one["rank"]) == (False, [], 0)


@pytest.mark.parametrize("text", ["1/2", "pi", "-5", "10^3000", "what", "", "factor(12)"])
def test_only_integers_can_be_looked_up(text: str) -> None:
    with pytest.raises(CllmError):
        lattice_number.number(text)


def test_large_factors() -> None:
    found = lattice_number.factors("2^101 - 1")
    assert found["factors"] == [["7432339208719", 1], ["341117531003194129", 1]]


@pytest.mark.parametrize("name", [c for c in CURVES if c != "crystalline-prime"])
def test_place_and_at_agree(name: str) -> None:
    options: dict[str, Any] = {"start": 1, "lap": 0}
    for n in ("41", "1009", "4242"):
        there = lattice_number.place(n, name, options)
        found = lattice_number.at(name, options, there["x"], there["y"], 1e-3)
        assert found["n"] == n


def test_places_that_are_not_there() -> None:
    with pytest.raises(DomainError, match="ends at 10"):
        lattice_number.place("10^13", "ulam", {})
    with pytest.raises(DomainError, match="begins at"):
        lattice_number.place("40", "ulam", {"start": 41})
    with pytest.raises(DomainError, match="not a prime"):
        lattice_number.place("10", "crystalline-prime", {})
    assert lattice_number.at("wheel", {}, 0.0, 0.0, 1.0)["n"] is None
    assert lattice_number.at("ulam", {}, 1e12, 0.0, 1.0)["n"] is None
    assert float(lattice_number.place("13", "crystalline-prime", {})["x"]) == pytest.approx(
        float(CURVES["crystalline-prime"].place(np.array([6]), Options())[0][0])
    )


def test_expression_at_a_number_is_proven() -> None:
    assert lattice_number.value_at("10^12", "sqrt(n)")["text"] == "1000000"
    assert "error" in lattice_number.value_at("10", "1/(n-10)")


def test_euler_quadratic() -> None:
    found = lattice_overlay.quadratic(1, 1, 41, "ulam", {"start": 41}, 0, 40)
    assert found["primes"] == found["terms"] == 40
    assert found["discriminant"] == -163
    assert found["formula"] == "t² + t + 41"
    x, y = np.array(found["x"]), np.array(found["y"])
    assert len({*(x - y).tolist()}) == 1  # it is the diagonal of the spiral that begins at 41


@given(st.integers(1, 10**12), st.sampled_from([1, -1]), st.sampled_from([1, 41]))
def test_the_diagonal_through_a_number(n: int, slope: int, start: int) -> None:
    if n < start:
        n += start
    if n > 10**12:
        n = 10**12
    found = lattice_overlay.diagonal(n, slope, start)
    a, b, c = found["a"], found["b"], found["c"]
    assert a == 4 and c >= start
    assert b >= -4, "from t = 0 on it does not fall"
    x, y = lattice_overlay.ulam(n - start + 1)
    values = {4 * t * t + b * t + c for t in range(max(0, found["at"] - 3), found["at"] + 12)}
    ahead = [ulam_inverse(x + d * t, y + d * slope * t) + start - 1 for t in range(4, 9) for d in (1, -1)]
    assert any(v in values for v in ahead)


def test_diagonals_refuse() -> None:
    with pytest.raises(DomainError, match="slope"):
        lattice_overlay.diagonal(5, 2, 1)
    with pytest.raises(DomainError):
        lattice_overlay.quadratic(0, 0, 5, "ulam", {}, 0, 10)
    with pytest.raises(LimitError):
        lattice_overlay.quadratic(1, 0, 0, "ulam", {}, 0, 10**6)
    with pytest.raises(DomainError, match="no value"):
        lattice_overlay.quadratic(-1, 0, -5, "ulam", {}, 0, 10)


@pytest.mark.parametrize(
    ("kind", "kissing", "volume", "faces", "corners"),
    [("cubic", 6, 1, 6, 8), ("FCC", 12, 2, 12, 14), ("BCC", 8, 4, 14, 24), ("A2", 6, 3**0.5, 6, 6)],
)
def test_lattices_in_space(kind: str, kissing: int, volume: float, faces: int, corners: int) -> None:
    """Known kissing numbers and cells (cube, rhombic dodecahedron, truncated octahedron, hexagon)."""
    found = lattice_space.space(kind, None, None, 3, 0, 2.0)
    assert found["kissing"] == len(found["neighbours"]) == kissing
    assert found["touching"]
    assert found["volume"] == pytest.approx(volume)
    assert found["cell"]["volume"] == pytest.approx(volume)
    assert (len(found["cell"]["faces"]), len(found["cell"]["vertices"])) == (faces, corners)
    if found["rank"] == 3:  # Euler
        edges = sum(len(f) for f in found["cell"]["faces"]) / 2
        assert corners - edges + faces == 2


@given(st.lists(st.integers(-6, 6), min_size=9, max_size=9))
def test_cell_of_any_basis_has_the_lattice_volume(entries: list[int]) -> None:
    basis = [entries[0:3], entries[3:6], entries[6:9]]
    if round(np.linalg.det(np.array(basis, dtype=float))) == 0:
        with pytest.raises(DomainError, match="one plane"):
            lattice_space.space("own", basis, None, 3, 0, 1.0)
        return
    found = lattice_space.space("own", basis, None, 3, 0, 1.0)
    assert found["cell"]["volume"] == pytest.approx(abs(np.linalg.det(np.array(basis, dtype=float))), rel=1e-6)


def test_slices_of_e8() -> None:
    flat = lattice_space.space("E8", None, [0, 1, 2], 3, 0, 2.0)
    assert flat["height"] == 0 and flat["norm"] == 2
    moved = lattice_space.space("E8", None, [0, 1, 2], 3, 1, 2.0)
    assert moved["height"] > 0
    # a point of the slice and its height make a vector of E8: its norm is an even integer
    norms = np.sum(np.square(moved["points"]), axis=1) + moved["height"] ** 2
    assert np.abs(norms - np.rint(norms)).max() < 1e-6
    assert (np.rint(norms) % 2 == 0).all()
    with pytest.raises(DomainError):
        lattice_space.space("E8", None, [0, 0, 1], 3, 0, 2.0)


def test_e8_roots_in_the_coxeter_plane() -> None:
    """Eight rings of thirty; each root has 56 neighbours at 60 degrees."""
    found = lattice_space.space("E8-roots", None, None, 3, 0, 2.0)
    points = np.array(found["points"])
    radii, counts = np.unique(np.round(np.hypot(points[:, 0], points[:, 1]), 5), return_counts=True)
    assert len(points) == 240 and counts.tolist() == [30] * 8 and len(radii) == 8
    assert len(found["edges"]) == 240 * 56 / 2


@pytest.mark.parametrize(
    "wrong", [("nope", None, 2.0), ("own", [[1, 0, 0]], 2.0), ("own", [[99, 0, 0], [0, 1, 0], [0, 0, 1]], 2.0),
              ("FCC", None, 99.0)],
)  # fmt: skip
def test_space_refuses(wrong: tuple[str, Any, float]) -> None:
    with pytest.raises(CllmError):
        lattice_space.space(wrong[0], wrong[1], None, 3, 0, wrong[2])


def view(curve: str, **more: Any) -> dict[str, Any]:
    made = View(curve, -6.0, -6.0, 6.0, 6.0, 600, 600, **more)
    found: dict[str, Any] = msgspec.to_builtins(made)
    return found


def test_csv_is_the_numbers_of_the_view() -> None:
    rows = csv(view("ulam")).splitlines()
    assert rows[0] == "n,x,y,prime,least,big_omega,mobius"
    assert len(rows) == 1 + 12 * 12
    by_n = {int(r.split(",")[0]): r.split(",") for r in rows[1:]}
    assert by_n[7][3:] == ["1", "7", "1", "-1"]
    assert all(int(r[3]) == sympy.isprime(n) for n, r in by_n.items())


@pytest.mark.parametrize("curve", ["ulam", "sacks", "wheel", "ring-clock", "crystalline", "clock-abacus"])
def test_svg_has_a_shape_for_each_coloured_number(curve: str) -> None:
    asked = view(curve) if curve != "clock-abacus" else {**view(curve), "x0": 0.5, "x1": 0.502, "y0": 0.4, "y1": 0.402}
    tree = ElementTree.fromstring(svg(asked))
    shapes = [e for e in tree.iter() if e.tag.rpartition("}")[2] in ("circle", "path")]
    if curve == "ulam":
        shapes = [e for e in tree.iter() if e.tag.endswith("rect")][1:]
    points = numbers(msgspec.convert(asked, View))
    assert len(shapes) == sum(bool(sympy.isprime(int(n))) for n in points.n)


def test_exports_have_limits() -> None:
    wide = {**view("ulam"), "x0": -1e5, "x1": 1e5, "y0": -1e5, "y1": 1e5}
    with pytest.raises(LimitError, match="Zoom in"):
        csv(wide)
    with pytest.raises((DomainError, msgspec.ValidationError)):
        csv({**view("ulam"), "x0": 7.0})


def test_folded_clock_points() -> None:
    found = folded(0, 464, msgspec.to_builtins(lattice_number_colouring()), "dark")
    for angle, fold, quadrant in zip(found["angle"], found["folded"], found["quadrant"], strict=True):
        assert 0 <= fold <= np.pi / 2 + 1e-12
        back = [fold, np.pi - fold, np.pi + fold, 2 * np.pi - fold][quadrant]
        assert angle == pytest.approx(back % (2 * np.pi), abs=1e-12)
    shown = [n for n, colour in zip(found["n"], found["colour"], strict=True) if colour]
    assert shown == list(sympy.primerange(464))
    with pytest.raises(LimitError):
        folded(0, 10**6, msgspec.to_builtins(lattice_number_colouring()), "dark")


def lattice_number_colouring() -> Any:
    from cllm.studio.lattice_colours import Colouring

    return Colouring()


def test_expression_error_says_where() -> None:
    with pytest.raises(ExpressionError) as caught:
        Formula("n + foo(2)")
    assert (caught.value.start, caught.value.end) == (4, 7)
