"""Each native primitive, in exact rationals; what it refuses; and that these tests see a library with a mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import native_checks
import numpy as np
import pytest
from flint import arb

import cllm
from cllm.errors import CertificateError
from cllm.spec import elementary, fast, fixed, native, slices
from cllm.spec.balls import working

pytestmark = pytest.mark.skipif(not native.available(), reason="no native library")
SOURCES = Path(cllm.__file__).parent


@pytest.mark.parametrize("name", native_checks.CHECKS)
def test_native(name) -> None:
    native_checks.run(name, range(200))


@pytest.mark.prove
@pytest.mark.parametrize("name", native_checks.CHECKS)
def test_native_many(name) -> None:
    native_checks.run(name, range(1000, 8000))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_native_refuses_what_is_not_finite(bad) -> None:
    x = np.ones((2, 3))
    x[1, 2] = bad
    with working(256):
        for refuses in (fixed.extent, slices.of_floats, lambda x: fixed.from_floats(x, 4, (3, -50))):
            with pytest.raises(CertificateError, match="not finite"):
                refuses(x)
        flat = [arb(v) for v in x.ravel().tolist()]
        with pytest.raises(CertificateError, match="not finite"):
            fixed.from_balls(flat, (2, 3), 4)
        wide = fixed.Fixed(*_parts(np.ones((2, 3))), np.where(np.isfinite(x), 0.0, np.inf))
        with pytest.raises(CertificateError, match="not finite"):
            slices.of_balls(wide, 256)
        assert not np.isfinite(fixed.to_floats(fixed.mul(wide, wide))[2][1, 2])


def _parts(x):
    f = fixed.from_floats(x, 4)
    return f.limbs, f.exponent, f.bits


def test_native_exp_of_a_wide_ball_is_unbounded() -> None:
    with working(256):
        a = fixed.from_balls([arb(1, 1.5), arb(1, 0.5)], (1, 2), 4)
        assert elementary.exp(a).rad[0, 0] == np.inf > elementary.exp(a).rad[0, 1]


def test_native_numbers_too_large_are_left_to_arb(monkeypatch) -> None:
    with working(256):
        a = fixed.from_balls([arb(-3e9), arb(2)], (1, 2), 4)
        monkeypatch.setattr(elementary, "call", None)
        found = fixed.to_balls(elementary.exp(a)) + fixed.to_balls(elementary.tanh(a))
        for y, z in zip(found, [arb(-3e9).exp(), arb(2).exp(), arb(-1), arb(2).tanh()], strict=True):
            assert y.overlaps(z)


def test_native_sums_that_are_no_integers_are_refused() -> None:
    out = np.empty((1, 1, 4), np.uint64)

    def recombine(*sums: float, left: int = 0) -> int:
        c = np.array(sums).reshape(1, len(sums), 1, 1)
        return native.call("recombine", 1, 1, 4, 1, len(sums), native.address(c), left, native.address(out))

    assert recombine(2.0**53, -1.0) == 75
    for bad in (0.5, np.nan, np.inf, 2.0**53 + 2):
        with pytest.raises(CertificateError):
            recombine(1.0, bad)
    with pytest.raises(CertificateError):
        recombine(2.0**53, left=250)


def test_native_digits_that_do_not_fit_are_refused() -> None:
    with working(256):
        a = fixed.from_floats(np.full((1, 2), 3.0), 4)
        x = slices.of_balls(a, 256)
        out = np.empty((1, x.count, 2))
        with pytest.raises(CertificateError):
            slices.Operand(a, x.exponent - 2, x.count, x.size, x.rad).digits((slice(None), slice(None)), out)
        f = slices.of_floats(np.full((1, 2), 3.0))
        for wrong in (f.exponent - 2, f.exponent + 30):
            with pytest.raises(CertificateError):
                bad = slices.Operand(f.values, wrong, f.count, f.size, f.rad)
                bad.digits((slice(None), slice(None)), np.empty((1, f.count, 2)))


def test_native_weights_too_far_apart_are_refused() -> None:
    with pytest.raises(CertificateError, match="too small"):
        slices.of_floats(np.array([[1e200, 1e-200]]))


MUTANTS = {
    "no rounding of radii": ("limbs.hpp", "return x * (1 + 0x1p-30) + TINY;", "return x;"),
    "size of small negative numbers": ("limbs.hpp", "(fill && !t ? 0x1p64 : 0)", "0"),
    "sign not extended": ("limbs.hpp", "i < n ? a[i] : fill", "i < n ? a[i] : Limb(0)"),
    "carry lost": ("limbs.hpp", "a[i] = Limb(t);\n    carry = Limb(t >> 64);", "a[i] = Limb(t);\n    carry = 0;"),
    "last place of a sum": ("arrays.cpp", "if (shift_a < 0 && !is_zero(p, L)) rad += unit;", ""),
    "last place of a product": ("arrays.cpp", "rad = up(rad + unit);", "rad = up(rad);"),
    "last place of row sums": ("arrays.cpp", "if (right > 0 && !is_zero(total, L + 1)) rad += unit;", ""),
    "product of the radii": ("arrays.cpp", "ra * (size_b(q, L) + rb)", "ra * size_b(q, L)"),
    "radii of the right factor": ("arrays.cpp", "size_a(p, L) * rb + ra", "ra"),
    "what float64 does not hold": ("arrays.cpp", "lost ? unit : 0", "0 * unit"),
    "third part of an expansion": ("arrays.cpp", "h * 0x1p-105", "0"),
    "digits without their sign": ("slices.cpp", "if (sign(x, whole)) digit -= BASE;", ""),
    "carry rounded to zero": ("slices.cpp", "carry = digit >> DIGIT;", "carry = digit / BASE;"),
    "slope of exp": ("functions.cpp", "value * up(rad + rad * rad)", "value * rad"),
    "slope of tanh": ("functions.cpp", "- 2 * unit - rad, 0.0)", "- 2 * unit, 0.0)"),
    "last place of exp": ("functions.cpp", "value * lost + unit)", "value * lost)"),
    "Taylor's series cut short": ("functions.cpp", "tables.terms - 1;", "tables.terms - 9;"),
    "a digit of the quotient": ("functions.cpp", "(64 * M + 47) / 48", "(64 * M + 47) / 48 - 4"),
}
QUICK = ("no rounding of radii",)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no compiler")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.prove]) for name in MUTANTS]
)
def test_a_mistake_in_the_library_is_found(name, tmp_path, monkeypatch) -> None:
    """The checks above, on a library that has it."""
    file, old, new = MUTANTS[name]
    for source in sorted((SOURCES / "spec/native/src").iterdir()):
        text = source.read_text()
        if source.name == file:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / source.name).write_text(text)
    lib = tmp_path / "spec/native/lib"
    lib.mkdir(parents=True)
    command = [os.environ.get("CXX", "g++"), "-std=gnu++17", "-O0", "-w", "-ffp-contract=off", "-fPIC", "-shared"]
    parts = [*map(str, tmp_path.glob("*.cpp")), str(SOURCES / "native_level.cpp")]
    clean = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    subprocess.run([*command, *parts, "-o", str(lib / "slices-baseline.so")], check=True, env=clean)
    monkeypatch.setenv("CLLM_NATIVE", "baseline")
    monkeypatch.setenv("CLLM_NATIVE_LIB", str(tmp_path))
    assert native.available()
    for check in native_checks.CHECKS:
        try:
            native_checks.run(check, range(300))
        except (AssertionError, CertificateError):
            return
    pytest.fail(f"not found: {name}")


def test_an_old_library_falls_back(monkeypatch) -> None:
    monkeypatch.setitem(native.SIGNATURES, "later", ())
    with pytest.raises(CertificateError, match="make native"):
        native.call("later")
    monkeypatch.setenv("CLLM_NATIVE", "off")
    assert not native.available()
    with pytest.raises(CertificateError, match="switched off"):
        native.call("subnormals_survive")
    with pytest.raises(CertificateError, match="not there"):
        fast.self_test()
