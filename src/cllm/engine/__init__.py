"""Explicit forward and backward of every op on torch tensors; one op a file, both directions side by side.

No autograd: each backward is the hand-derived formula (docs/derivations/<op>.md) and *accumulates* weight gradients
with +=. All outputs and scratch space are passed in, so that a step allocates nothing.

Shape letters: B batch, T sequence, N = B·T rows, D width, F feed-forward width, H heads, K = D/H head width,
V vocabulary, S keys. `x_ND` is a tensor of shape (N, D).
"""
