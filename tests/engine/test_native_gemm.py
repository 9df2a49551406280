"""Native linear maps at every level of this machine: bounds, fused GELU, strides, guards, bits, long reductions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_levels import LEVELS
from op_checks import DTYPES, Draw, check_linear, exact, grads
from torch import Tensor

from cllm.engine.dispatch import Kernels, torch_kernels
from cllm.engine.native import gemm
from judges import bounds, plain_ops
from judges.bounds import UNIT, Bounded, check, stored

at_every_level = pytest.mark.parametrize("level", LEVELS, indirect=True)
of_every_type = pytest.mark.parametrize("dtype", DTYPES)
at_best = pytest.mark.skipif(LEVELS[-1] not in ("baseline", "avx2", "avx512", "avx512bf16"), reason="no native kernels")
# rows, inner, columns: 1, primes, one less and one more than tiles and vectors, several blocks of rows and of k
SHAPES = [
    (1, 1, 1),
    (2, 1, 3),
    (13, 31, 17),
    (14, 32, 32),
    (15, 33, 65),
    (29, 2, 7),
    (5, 2051, 3),
    (2051, 3, 5),
    (127, 67, 41),
]


def native_kernels(dtype: torch.dtype) -> Kernels:
    return replace(
        torch_kernels(dtype),
        linear_forward=gemm.linear_forward,
        linear_backward_input=gemm.linear_backward_input,
        linear_backward_weight=gemm.linear_backward_weight,
    )


def check_gelu_maps(dtype: torch.dtype, seed: int, n: int, i: int, o: int, form: str) -> None:
    """pre and post of the forward; the slope joined to dY·W in the backward, which may overwrite pre."""
    d = Draw(seed, dtype)
    x, w, b = d.normal(n, i), d.normal(o, i, scale=i**-0.5), d.wide(o)
    pre, post = d.empty(n, o), d.empty(n, o)
    gemm.linear_gelu_forward(x, w, b, pre, post, form=form)
    bx, bw, bb = d.bounded(x, w, b)
    check("pre", pre, plain_ops.linear(*exact(x, w, b)).detach(), stored(bounds.linear_forward(bx, bw, bb), dtype))
    (P,) = exact(pre)
    Y = plain_ops.gelu(P, form)
    value, slope = bounds.gelu(Bounded(pre, d.u), form)
    if form == "gelu_tanh":  # the judge's 1 + tanh u cancels where the kernel's logistic form does not
        judge = bounds.gelu_textbook(Bounded(pre, UNIT[torch.float64]))
        value, slope = bounds.either(value, judge[0]), bounds.either(slope, judge[1])
    check("post", post, Y.detach(), stored(value, dtype))

    dy, v = d.normal(n, i), d.normal(i, o, scale=i**-0.5)  # back through a second map, o → i
    dpre = pre.clone()
    gemm.linear_gelu_backward_input(dy, v, dpre, dpre, form=form)
    bdy, bv = d.bounded(dy, v)
    want = (dy.double() @ v.double()) * grads(Y, torch.ones(n, o), P)[0]
    check("dpre", dpre, want, stored((bdy @ bv) * slope, dtype))


@at_every_level
@of_every_type
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear(level, dtype, shape):
    check_linear(native_kernels(dtype), dtype, 1, *shape, bias=True)
    check_linear(native_kernels(dtype), dtype, 2, *shape, bias=False)
    check_linear(native_kernels(dtype), dtype, 3, *shape, bias=True, joins=True)


@at_every_level
@of_every_type
@pytest.mark.parametrize("form", ["gelu_tanh", "gelu_erf"])
def test_gelu_maps(level, form, dtype):
    for shape in ((1, 1, 1), (15, 33, 65), (40, 1100, 37)):
        check_gelu_maps(dtype, 1, *shape, form)


@at_best
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES), st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 140), st.integers(1, 70),
    st.sampled_from(["linear", "joins", "gelu_tanh", "gelu_erf"]),
)  # fmt: skip
def test_any_shape(dtype, seed, n, i, o, what):
    if what.startswith("gelu"):
        check_gelu_maps(dtype, seed, n, i, o, what)
    else:
        check_linear(native_kernels(dtype), dtype, seed, n, i, o, bias=True, joins=what == "joins")


@at_every_level
def test_more_columns_than_are_packed_at_once(level):
    """2500×1000 words of 8 bytes are more than one portion of B."""
    check_linear(native_kernels(torch.float64), torch.float64, 1, 3, 2500, 1000, bias=True)
    check_linear(native_kernels(torch.float64), torch.float64, 1, 2500, 1000, 3, bias=True)


GUARD = 7.0


class Framed:
    """Matrices inside wider ones: operands in a frame of NaN, results in one of guard numbers."""

    def __init__(self, d: Draw, around: int) -> None:
        self.d, self.around, self.frames = d, around, []

    def _put(self, x: Tensor, fill: float) -> Tensor:
        a = self.around
        frame = torch.full((x.shape[0] + 2 * a, x.shape[1] + 3 * a), fill, dtype=x.dtype)
        inside = frame[a : a + x.shape[0], a : a + x.shape[1]]
        inside.copy_(x)
        if fill == GUARD:
            self.frames.append((frame, x.shape))
        return inside

    def operand(self, x: Tensor) -> Tensor:
        return self._put(x, torch.nan)

    def result(self, x: Tensor) -> Tensor:
        return self._put(x, GUARD)

    def check(self) -> None:
        for frame, (rows, columns) in self.frames:
            untouched, a = frame.clone(), self.around
            untouched[a : a + rows, a : a + columns] = GUARD
            assert (untouched == GUARD).all(), "written outside"


@at_every_level
@of_every_type
@pytest.mark.parametrize("shape", [(1, 1, 1), (17, 9, 47), (30, 45, 33)], ids=str)
def test_strides_and_guards(level, dtype, shape):
    """Column blocks of wider matrices give the bits of compact ones; NaN around operands and what lies around results
    is neither used nor changed."""
    n, i, o = shape
    d = Draw(1, dtype)
    x, w, dy, b, r, p = d.normal(n, i), d.normal(o, i), d.normal(n, o), d.wide(o), d.wide(n, o), d.normal(n, i)
    dw0, db0 = d.wide(o, i), d.wide(o)

    def outputs(f: Framed | None) -> list[Tensor]:
        into = f.operand if f else torch.clone
        out = f.result if f else torch.clone
        X, W, DY, P = into(x), into(w), into(dy), into(p)
        y, pre, post, dx, dpre = (out(d.empty(*s)) for s in ((n, o), (n, o), (n, o), (n, i), (n, i)))
        wide, joined, dw, db = out(d.room(n, o)), out(r), out(dw0), db0.clone()
        gemm.linear_forward(X, W, b, y)
        gemm.linear_forward(X, W, b, wide)
        gemm.linear_forward(X, W, None, joined, joined)
        gemm.linear_gelu_forward(X, W, b, pre, post)
        gemm.linear_backward_input(DY, W, dx)
        gemm.linear_gelu_backward_input(DY, W, P, dpre)
        gemm.linear_backward_weight(DY, X, dw, db)
        return [y, wide, joined, pre, post, dx, dpre, dw, db]

    want = outputs(None)
    for around in (1, 3):
        framed = Framed(d, around)
        for got, known in zip(outputs(framed), want, strict=True):
            assert torch.equal(got, known)
        framed.check()


@at_every_level
@of_every_type
def test_same_bits_again_and_with_other_threads(level, dtype):
    d = Draw(1, dtype)
    n, i, o = 131, 257, 97
    x, w, dy, b = d.normal(n, i), d.normal(o, i), d.normal(n, o), d.wide(o)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            y, dx, dw, db = d.empty(n, o), d.empty(n, i), torch.zeros(o, i, dtype=d.sums), torch.zeros(o, dtype=d.sums)
            gemm.linear_forward(x, w, b, y)
            gemm.linear_backward_input(dy, w, dx)
            gemm.linear_backward_weight(dy, x, dw, db)
            runs.append((y, dx, dw, db))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@at_every_level
@of_every_type
@pytest.mark.parametrize(("n", "i", "o"), [(0, 3, 2), (1, 1, 1), (131, 257, 97), (2051, 33, 65)])
def test_a_written_weight_gradient_is_one_added_to_zeros(level, dtype, n, i, o):
    """Whatever the buffer held; and a bfloat16 one is the float32 sum, added and rounded once."""
    d = Draw(n, dtype)
    dy, x, start = d.normal(n, o), d.normal(n, i), d.wide(o, i)
    added, written = torch.zeros(o, i, dtype=d.sums), torch.full((o, i), torch.nan, dtype=d.sums)
    db, again = torch.zeros(o, dtype=d.sums), torch.zeros(o, dtype=d.sums)
    gemm.linear_backward_weight(dy, x, added, db)
    for soon in (True, False):
        gemm.linear_backward_weight(dy, x, written.fill_(torch.nan), again.zero_(), add=False, soon=soon)
        assert torch.equal(added, written)
        assert torch.equal(db, again)
    if dtype == torch.bfloat16:
        narrow, total = torch.full((o, i), torch.nan, dtype=dtype), start.to(dtype)
        gemm.linear_backward_weight(dy, x, narrow, None, add=False)
        assert torch.equal(narrow, added.bfloat16())
        gemm.linear_backward_weight(dy, x, again := total.clone(), None)
        assert torch.equal(again, (total.float() + added).bfloat16())


@at_every_level
@of_every_type
def test_an_entry_depends_on_its_row_and_column_alone(level, dtype):
    d = Draw(1, dtype)
    x, w = d.normal(40, 70), d.normal(50, 70)
    y = d.empty(40, 50)
    gemm.linear_forward(x, w, None, y)
    for rows, columns in ((slice(3, 4), slice(0, 50)), (slice(7, 30), slice(11, 12)), (slice(0, 40), slice(17, 50))):
        part = d.empty(*y[rows, columns].shape)
        gemm.linear_forward(x[rows], w[columns], None, part)
        assert torch.equal(part, y[rows, columns])
    x[5] = torch.nan
    again = d.empty(40, 50)
    gemm.linear_forward(x, w, None, again)
    assert again[5].isnan().all()
    again[5] = y[5]
    assert torch.equal(again, y)


@at_every_level
@of_every_type
def test_saturated_gelu(level, dtype):
    """Exactly x and 0, slopes 1 and 0; a NaN stays one."""
    x = torch.tensor([1e14, -1e14, 1e30, -1e30, 100.0, -100.0, torch.nan]).to(dtype).unsqueeze(1)
    one = torch.ones(1, 1, dtype=dtype)
    pre, post = torch.empty_like(x), torch.empty_like(x)
    gemm.linear_gelu_forward(x, one, None, pre, post)
    assert torch.equal(post[:6], pre[:6].clamp_min(0)) and post[6].isnan()
    gemm.linear_gelu_backward_input(torch.ones_like(x), one, x, post)
    assert post[:6].flatten().tolist() == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0] and post[6].isnan()


@at_best
@of_every_type
def test_empty_sums(dtype):
    """No rows: nothing is written. An inner dimension of 0: sums of nothing."""
    d = Draw(1, dtype)
    gemm.linear_forward(d.normal(0, 3), d.normal(2, 3), d.wide(2), d.empty(0, 2))
    dw, db = torch.ones(2, 3, dtype=d.sums), torch.ones(2, dtype=d.sums)
    gemm.linear_backward_weight(d.normal(0, 2), d.normal(0, 3), dw, db)
    assert (dw == 1).all() and (db == 1).all()
    b, y = d.wide(2), d.room(4, 2)
    gemm.linear_forward(d.normal(4, 0), d.normal(2, 0), b, y)
    assert torch.equal(y, b.expand(4, 2))


@at_best
def test_a_reserved_workspace_does_not_grow():
    space = gemm.Workspace()
    x, w, y = torch.randn(60, 300), torch.randn(200, 300), torch.empty(60, 200)
    space.reserve(torch.float32, 60, 200, 300)
    before = space.nbytes
    gemm.linear_forward(x, w, None, y, workspace=space)
    assert space.nbytes == before > 0


@at_best
def test_what_the_kernels_refuse():
    x, w, y = torch.randn(4, 3), torch.randn(5, 3), torch.empty(4, 5)
    wrong = [
        lambda: gemm.linear_forward(x, w, None, torch.empty(5, 4)),
        lambda: gemm.linear_forward(x, w.double(), None, y),
        lambda: gemm.linear_forward(x, w, torch.zeros(4), y),
        lambda: gemm.linear_forward(x, w, torch.zeros(10)[::2], y),
        lambda: gemm.linear_forward(torch.randn(3, 4).t(), w, None, y),
        lambda: gemm.linear_forward(x[:1].expand(4, 3), w, None, y),
        lambda: gemm.linear_forward(x, w, None, y, torch.randn(4, 6)),
        lambda: gemm.linear_forward(x.long(), w.long(), None, y),
        lambda: gemm.linear_forward(x[0], w, None, y),
        lambda: gemm.linear_gelu_forward(x, w, None, y, y.bfloat16()),
        lambda: gemm.linear_gelu_forward(x, w, None, y, y, form="relu"),
        lambda: gemm.linear_backward_input(y, w, torch.empty(4, 4)),
        lambda: gemm.linear_gelu_backward_input(y, w, torch.empty(4, 2), torch.empty(4, 3)),
        lambda: gemm.linear_backward_weight(y, x, torch.empty(5, 3).bfloat16(), None),
        lambda: gemm.linear_backward_weight(y.bfloat16(), x.bfloat16(), torch.empty(5, 3).half(), None),
        lambda: gemm.linear_backward_weight(y, x[:3], torch.empty(5, 3), None),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="expected"):
            call()
