"""Gradient accumulation over micro-batches of unequal length: the usual mean of means, and one division.

    python examples/accumulation.py [RESULT.json]

Twelve rows of different lengths are one optimiser step. Cut into micro-batches, a training loop that averages each
micro-batch's loss and divides by their number (`loss = loss.mean() / accumulate; loss.backward()`) optimises another
objective than the same loop on all rows at once: tokens of short rows count more. Frameworks had this fault for years,
because nothing looks wrong. Here the same model, rows and weights go through plain PyTorch in that way, through plain
PyTorch with sums and one division, and through cllm's step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cllm.config import load
from cllm.model.batch import Batch
from cllm.model.model import Model
from cllm.model.step import Step

ROWS, LENGTHS = 12, (2, 3, 4, 5, 7, 9, 12, 16, 22, 30, 41, 64)


def plain_losses(w: dict[str, Tensor], heads: int, tokens_BT1: Tensor, documents_BT1: Tensor) -> Tensor:
    """The loss of every valid target, by the textbook: autograd does the rest."""
    x = w["tok"][tokens_BT1[:, :-1]] + w["pos"][: tokens_BT1.shape[1] - 1]
    b, t, d = x.shape
    layer = 0
    while f"{layer}.ln1.g" in w:
        p = {name.removeprefix(f"{layer}."): value for name, value in w.items() if name.startswith(f"{layer}.")}
        y = F.layer_norm(x, (d,), p["ln1.g"], p["ln1.b"])
        q, k, v = (F.linear(y, p[f"attn.w{c}"], p[f"attn.b{c}"]).view(b, t, heads, -1).transpose(1, 2) for c in "qkv")
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + F.linear(mixed, p["attn.wo"], p["attn.bo"])
        y = F.layer_norm(x, (d,), p["ln2.g"], p["ln2.b"])
        inner = F.gelu(F.linear(y, p["ffn.w1"], p["ffn.b1"]), approximate="tanh")
        x = x + F.linear(inner, p["ffn.w2"], p["ffn.b2"])
        layer += 1
    logits = F.linear(F.layer_norm(x, (d,), w["lnf.g"], w["lnf.b"]), w["tok"])
    valid = (documents_BT1[:, :-1] >= 0) & (documents_BT1[:, 1:] >= 0)
    return F.cross_entropy(logits[valid], tokens_BT1[:, 1:][valid], reduction="none")


def plain_gradient(model: Model, parts: list[Batch], *, mean_of_means: bool) -> Tensor:
    """The gradient of a step by plain PyTorch: each micro-batch's mean over their number, or sums over all targets."""
    w = {name: view.clone().requires_grad_() for name, view in model.params.items()}
    total = 0
    for part in parts:
        losses = plain_losses(w, model.config.heads, part.tokens_BT1, part.documents_BT1)
        total += len(losses)
        (losses.mean() / len(parts) if mean_of_means else losses.sum()).backward()
    flat = torch.cat([value.grad.flatten() if value.grad is not None else 0 * value.flatten() for value in w.values()])
    return flat.detach() / (1 if mean_of_means else total)


def our_gradient(model: Model, parts: list[Batch]) -> Tensor:
    """The gradient of a step by cllm: sums, and one division."""
    step = Step(model, max(part.tokens_BT1.shape[0] for part in parts), parts[0].tokens_BT1.shape[1] - 1)
    step.zero()
    for part in parts:
        step.accumulate(part)
    return torch.cat([view.flatten() for view in step.grads.values()]) / step.sums.valid


def rows(vocab: int) -> tuple[Tensor, Tensor]:
    """Twelve rows of random tokens, shortest first, filled up with padding."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab, (ROWS, max(LENGTHS) + 1), generator=draw)
    documents = torch.full_like(tokens, -1)
    for row, length in enumerate(LENGTHS):
        documents[row, : length + 1] = 0
    return tokens, documents


def study(precision: str = "fp32") -> list[dict[str, float | int | str]]:
    """‖g − g of all rows at once‖ / ‖g of all rows at once‖ for each cut, in the three ways."""
    config = load(preset="nano", overrides={"model.vocab": 256})
    model = Model(config.model, {"fp32": torch.float32, "fp64": torch.float64}[precision]).initialise(seed=1)
    tokens, documents = rows(config.model.vocab)
    shuffled = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    whole = our_gradient(model, [Batch(tokens, documents)])
    found: list[dict[str, float | int | str]] = []
    for order, places in (("by length", torch.arange(ROWS)), ("shuffled", shuffled)):
        for size in (6, 4, 2, 1):
            cut = places.split(size)
            parts = [Batch(tokens[i], documents[i], first_row=int(n * size)) for n, i in enumerate(cut)]
            ways = {
                "mean_of_means": plain_gradient(model, parts, mean_of_means=True),
                "sums": plain_gradient(model, parts, mean_of_means=False),
                "cllm": our_gradient(model, parts),
            }
            errors = {name: float((g - whole).double().norm() / whole.double().norm()) for name, g in ways.items()}
            found.append({"rows": order, "micro_batches": len(parts), "of_rows": size, **errors})
    return found


if __name__ == "__main__":
    table = study()
    print("| rows | micro-batches | mean of means | sums, one division | cllm |\n|---|---|---|---|---|")
    for line in table:
        print(
            f"| {line['rows']} | {line['micro_batches']} × {line['of_rows']} | {100 * line['mean_of_means']:.0f} % | "
            f"{line['sums']:.0e} | {line['cllm']:.0e} |"
        )
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps({"format": "cllm-accumulation-1", "rows": table}, indent=1) + "\n")
