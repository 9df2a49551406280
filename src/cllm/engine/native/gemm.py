"""The linear maps on packed matrix products: Y = X·Wᵀ + b and its backward, with what follows done in the tiles of Y.

Operands (op) are float32, float64 or bfloat16; sums, biases, residuals and weight gradients (acc) are float32 for
bfloat16 operands and of the operands' type otherwise. Matrices are 2-D CPU tensors whose rows are contiguous; rows may
lie apart (a column block of a wider tensor). Formulas: engine/linear.py, engine/gelu.py.

Each entry is one sum over the inner dimension in blocks of fixed length, so its bits depend neither on the number of
threads nor on the other entries (at one instruction level).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor

from cllm import native
from cllm.engine.native import INT, POINTER, SUFFIX

_SIZES, _MATRIX = [INT] * 3, [POINTER, INT]
_ARGUMENTS = {
    "gemm_workspace": [*_SIZES, POINTER],
    "linear_forward": [*_SIZES, *_MATRIX * 2, POINTER, *_MATRIX * 2, POINTER],
    "linear_gelu_forward": [*_SIZES, *_MATRIX * 2, POINTER, *_MATRIX * 2, INT, POINTER],
    "linear_backward_input": [*_SIZES, *_MATRIX * 3, POINTER],
    "linear_gelu_backward_input": [*_SIZES, *_MATRIX * 4, INT, POINTER],
    "linear_backward_weight": [*_SIZES, *_MATRIX * 3, POINTER, INT, POINTER],
}
_ADDED, _WRITTEN, _WRITTEN_PAST_CACHES = range(3)  # as in gemm.cpp
_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


class Workspace:
    """The library of the level in force and scratch for packed blocks, grown when a product needs more.

    One for each thread that calls. Without one given, an op finds its thread's own, which costs a few microseconds.
    """

    def __init__(self) -> None:
        library = native.load("engine", "engine")
        if library is None:
            raise RuntimeError(f"no native kernels: {native.why_not('engine', 'engine')}")
        self._library = library
        self._memory = torch.empty(0, dtype=torch.uint8)

    @property
    def nbytes(self) -> int:
        return self._memory.numel()

    def reserve(self, dtype: torch.dtype, rows: int, columns: int, k: int) -> None:
        """Room for the product of rows×k by k×columns operands of `dtype`, now rather than when it is first needed."""
        self._scratch(SUFFIX[dtype], rows, columns, k)

    def _kernel(self, op: str, suffix: str) -> Callable[..., None]:
        return _kernel(self._library, op, suffix)

    def _scratch(self, suffix: str, rows: int, columns: int, k: int) -> int:
        need = _bytes(self._library, torch.get_num_threads(), suffix, rows, columns, k)
        if self._memory.numel() < need:
            self._memory = torch.empty(need, dtype=torch.uint8)
        return self._memory.data_ptr()


class _Own(threading.local):
    """Each thread's workspaces, by library."""

    def __init__(self) -> None:
        self.workspaces: dict[ctypes.CDLL | None, Workspace] = {}


_own = _Own()


def _workspace() -> Workspace:
    library = native.load("engine", "engine")
    found = _own.workspaces.get(library)
    if found is None:
        found = _own.workspaces[library] = Workspace()
    return found


@cache  # by library: another level is another function. The types are those of the op's name, whatever the scalar type
def _kernel(library: ctypes.CDLL, op: str, suffix: str) -> Callable[..., None]:
    found = getattr(library, f"{op}_{suffix}")
    found.argtypes, found.restype = _ARGUMENTS[op], None
    return cast(Callable[..., None], found)


@cache
def _bytes(library: ctypes.CDLL, _threads: int, suffix: str, rows: int, columns: int, k: int) -> int:
    found = ctypes.c_int64()
    _kernel(library, "gemm_workspace", suffix)(rows, columns, k, ctypes.byref(found))
    return found.value


def accumulator(op: torch.dtype) -> torch.dtype:
    """The type of sums over products of `op`."""
    return torch.float32 if op == torch.bfloat16 else op


def _matrix(x: Tensor, name: str, rows: int, columns: int, dtype: torch.dtype) -> tuple[int, int]:
    """Address and leading dimension, after checking that the kernel may take `x` for a rows×columns matrix."""
    if x.dtype is dtype and x.shape == (rows, columns) and x.is_cpu:
        down, right = x.stride()
        if (right == 1 or columns <= 1) and (down >= columns or rows <= 1):
            return x.data_ptr(), down
    raise ValueError(
        f"native kernel: {name}: expected a {rows}×{columns} {_NAMES.get(dtype, dtype)} CPU matrix with contiguous "
        f"rows, got {_NAMES.get(x.dtype, x.dtype)} {tuple(x.shape)} with strides {x.stride()} on {x.device}"
    )


def _vector(x: Tensor | None, name: str, n: int, dtype: torch.dtype) -> int | None:
    if x is None:
        return None
    if x.dtype != dtype or x.shape != (n,) or not x.is_contiguous() or x.device.type != "cpu":
        raise ValueError(
            f"native kernel: {name}: expected {n} contiguous {_NAMES[dtype]} numbers on the CPU, "
            f"got {_NAMES.get(x.dtype, x.dtype)} {tuple(x.shape)} with strides {x.stride()} on {x.device}"
        )
    return x.data_ptr()


def _sizes(x: Tensor, w: Tensor, name: str) -> tuple[int, int, int, str]:
    if x.ndim != 2 or w.ndim != 2 or x.dtype not in SUFFIX:
        raise ValueError(
            f"native kernel: {name}: expected float matrices, got {x.dtype} {x.shape}, {w.dtype} {w.shape}"
        )
    return x.shape[0], w.shape[0], w.shape[1], SUFFIX[x.dtype]


def _result(op: torch.dtype, out: Tensor) -> str:
    """Suffix of the kernel by operand and result type."""
    return "bf16_f32" if op == torch.bfloat16 and out.dtype == torch.float32 else SUFFIX[op]


def linear_forward(
    x_NK: Tensor,
    w_MK: Tensor,
    b_M: Tensor | None,
    out_NM: Tensor,
    residual_NM: Tensor | None = None,
    *,
    workspace: Workspace | None = None,
) -> None:
    """out = [residual +] x·Wᵀ [+ b]. out: op or acc; residual: acc, may be `out` itself. Errors: ValueError."""
    n, m, k, suffix = _sizes(x_NK, w_MK, "linear_forward")
    op, acc = x_NK.dtype, accumulator(x_NK.dtype)
    space = workspace or _workspace()
    kernel = space._kernel("linear_forward", _result(op, out_NM))
    kernel(
        n, m, k,
        *_matrix(x_NK, "x", n, k, op), *_matrix(w_MK, "w", m, k, op), _vector(b_M, "b", m, acc),
        *_matrix(out_NM, "out", n, m, acc if out_NM.dtype == acc else op),
        *(_matrix(residual_NM, "residual", n, m, acc) if residual_NM is not None else (None, 0)),
        space._scratch(suffix, n, m, k),
    )  # fmt: skip


def linear_gelu_forward(
    x_NK: Tensor,
    w_MK: Tensor,
    b_M: Tensor | None,
    pre_NM: Tensor,
    post_NM: Tensor,
    *,
    form: str = "gelu_tanh",
    workspace: Workspace | None = None,
) -> None:
    """pre = x·Wᵀ + b, post = gelu(pre) of the stored pre. pre, post: op. form: gelu_tanh or gelu_erf."""
    n, m, k, suffix = _sizes(x_NK, w_MK, "linear_gelu_forward")
    op = x_NK.dtype
    space = workspace or _workspace()
    kernel = space._kernel("linear_gelu_forward", suffix)
    kernel(
        n, m, k,
        *_matrix(x_NK, "x", n, k, op), *_matrix(w_MK, "w", m, k, op), _vector(b_M, "b", m, accumulator(op)),
        *_matrix(pre_NM, "pre", n, m, op), *_matrix(post_NM, "post", n, m, op),
        _erf(form), space._scratch(suffix, n, m, k),
    )  # fmt: skip


def linear_backward_input(dy_NM: Tensor, w_MK: Tensor, dx_NK: Tensor, *, workspace: Workspace | None = None) -> None:
    """dx = dy·W, written. dx: op or acc."""
    n, m, k, suffix = _sizes(dy_NM, w_MK, "linear_backward_input")
    op = dy_NM.dtype
    acc = accumulator(op)
    space = workspace or _workspace()
    kernel = space._kernel("linear_backward_input", _result(op, dx_NK))
    kernel(
        n, m, k,
        *_matrix(dy_NM, "dy", n, m, op), *_matrix(w_MK, "w", m, k, op),
        *_matrix(dx_NK, "dx", n, k, acc if dx_NK.dtype == acc else op),
        space._scratch(suffix, n, k, m),
    )  # fmt: skip


def linear_gelu_backward_input(
    dy_NM: Tensor,
    w_MK: Tensor,
    pre_NK: Tensor,
    dpre_NK: Tensor,
    *,
    form: str = "gelu_tanh",
    workspace: Workspace | None = None,
) -> None:
    """dpre = (dy·W) ∘ gelu′(pre), written; dpre may be `pre` itself."""
    n, m, k, suffix = _sizes(dy_NM, w_MK, "linear_gelu_backward_input")
    op = dy_NM.dtype
    space = workspace or _workspace()
    kernel = space._kernel("linear_gelu_backward_input", suffix)
    kernel(
        n, m, k,
        *_matrix(dy_NM, "dy", n, m, op), *_matrix(w_MK, "w", m, k, op),
        *_matrix(pre_NK, "pre", n, k, op), *_matrix(dpre_NK, "dpre", n, k, op),
        _erf(form), space._scratch(suffix, n, k, m),
    )  # fmt: skip


def linear_backward_weight(
    dy_NM: Tensor,
    x_NK: Tensor,
    dw_MK: Tensor,
    db_M: Tensor | None = None,
    *,
    add: bool = True,
    soon: bool = False,
    workspace: Workspace | None = None,
) -> None:
    """dw += dyᵀ·x (add=False: dw is written, whatever it held), db += Σ_rows dy. db: acc; dw: acc, or bfloat16 for
    bfloat16 operands, rounded once. soon: dw is read at once; otherwise a written one is stored past the caches."""
    if dy_NM.ndim != 2 or x_NK.ndim != 2 or dy_NM.dtype not in SUFFIX:
        raise ValueError(f"native kernel: linear_backward_weight: expected matrices, got {dy_NM.shape}, {x_NK.shape}")
    (n, m), k, op = dy_NM.shape, x_NK.shape[1], dy_NM.dtype
    suffix, acc = SUFFIX[op], accumulator(op)
    narrow = op == dw_MK.dtype == torch.bfloat16
    into = _ADDED if add else _WRITTEN if soon else _WRITTEN_PAST_CACHES
    space = workspace or _workspace()
    kernel = space._kernel("linear_backward_weight", "bf16_bf16" if narrow else suffix)
    kernel(
        n, m, k,
        *_matrix(dy_NM, "dy", n, m, op), *_matrix(x_NK, "x", n, k, op),
        *_matrix(dw_MK, "dw", m, k, op if narrow else acc),
        _vector(db_M, "db", m, acc), into, space._scratch(suffix, m, k, n),
    )  # fmt: skip


def _erf(form: str) -> int:
    if form not in ("gelu_tanh", "gelu_erf"):
        raise ValueError(f"form: expected gelu_tanh or gelu_erf, got {form!r}")
    return int(form == "gelu_erf")
