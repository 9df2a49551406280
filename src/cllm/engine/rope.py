"""Rotary positions (Su et al. 2021): queries and keys are turned in planes of two channels by an angle that grows with
the position, so that a score depends on how far apart its two tokens are.

    (a, b) ← (a·cos − b·sin, a·sin + b·cos),    angle(pos, j) = pos·base^(−2j/K)

Plane j of a head of K channels is (j, j + K/2), or (2j, 2j+1) interleaved. The rotation R is orthogonal, so its
backward is Rᵀ, the rotation by the opposite angle (docs/derivations/rope.md). Values stay as they are.
"""

from __future__ import annotations

from torch import Tensor


def rope(
    qkv_N3D: Tensor,
    cos_SJ: Tensor,
    sin_SJ: Tensor,
    positions_BT: Tensor | None,
    *,
    shape: tuple[int, int, int],
    interleaved: bool = False,
    inverse: bool = False,
) -> None:
    """Turn the first two thirds (Q and K, or their gradients) of each row in place; computed in the tables' precision.

    shape: (B, T, H).  cos, sin: [positions, K/2].  positions_BT: None for the column number.  inverse: Rᵀ.
    """
    b, t, h = shape
    d = qkv_N3D.shape[1] // 3
    cos, sin = (x[:t].unsqueeze(0) if positions_BT is None else x[positions_BT] for x in (cos_SJ, sin_SJ))
    cos, sin = cos.unsqueeze(2), (-sin if inverse else sin).unsqueeze(2)
    for third in range(2):
        x = qkv_N3D[:, third * d : (third + 1) * d].unflatten(1, (h, -1)).unflatten(0, (b, t))
        if interleaved:
            first, second = x[..., 0::2], x[..., 1::2]
        else:
            half = x.shape[-1] // 2
            first, second = x[..., :half], x[..., half:]
        p, q = first.to(cos.dtype), second.to(cos.dtype)
        turned = p * cos - q * sin, p * sin + q * cos
        first.copy_(turned[0])
        second.copy_(turned[1])
