"""Dropout masks by the native generator; definition and arguments as in engine/dropout.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cllm.engine.dropout import Key
from cllm.engine.native import INT, POINTER, function, pointer


def dropout_mask(key: Key, p: float, layer: int, site: int, mask_BTD: Tensor) -> None:
    """Write the keep mask (bool) of a hidden site: True where the element is kept."""
    function("dropout_mask", *[INT] * 8, POINTER)(
        *mask_BTD.shape, key.seed, key.step, key.first_row, layer << 8 | site, math.floor(p * 2**32),
        pointer(mask_BTD, mask_BTD.shape, torch.bool),
    )  # fmt: skip
