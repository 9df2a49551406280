"""Small random models and batches for the specification's tests, and a plain torch model to judge it by."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

from cllm.spec import Batch, Model
from cllm.spec.philox import kept

FIVE = np.array([4, 0, 2, 2, 1])
KEEP = np.arange(15).reshape(3, 5) % 3 != 1

# name → (shapes of the operands, the primitive's other arguments); operands are drawn from (0.2, 1.2)
CASES = {
    "t": ([(3, 5)], ()),
    "mm": ([(3, 5), (5, 2)], ()),
    "add": ([(3, 5), (1, 5)], ()),
    "sub": ([(3, 5), (3, 1)], ()),
    "mul": ([(1, 1), (3, 5)], ()),
    "neg": ([(3, 5)], ()),
    "sq": ([(3, 5)], ()),
    "scale": ([(3, 5)], (Fraction(-2, 7),)),
    "plus": ([(3, 5)], (Fraction(1, 3),)),
    "rowsum": ([(3, 5)], ()),
    "colsum": ([(3, 5)], ()),
    "spread": ([(1, 5)], ((3, 5),)),
    "exp": ([(3, 5)], ()),
    "log": ([(3, 5)], ()),
    "recip": ([(3, 5)], ()),
    "rsqrt": ([(3, 5)], ()),
    "sqrt": ([(3, 5)], ()),
    "tanh": ([(3, 5)], ()),
    "erf": ([(3, 5)], ()),
    "cut": ([(3, 5)], ((1, 2), (2, 2))),
    "gather": ([(5, 2)], (FIVE[:4],)),
    "scatter_rows": ([(5, 2)], (FIVE, 6)),
    "mask": ([(3, 5)], (KEEP,)),
    "pick": ([(5, 6)], (FIVE,)),
    "place": ([(5, 1)], (FIVE, 6)),
}


def random_params(layers, width, ff, vocab, positions, *, seed=0, tied=True, scale=0.2, learned=True):
    """float32 weights, none of them at its initial value (gains differ from 1, biases from 0)."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.normal(size=shape) * scale).astype(np.float32)

    p = {"tok": draw(vocab, width)}
    if learned:
        p["pos"] = draw(positions, width)
    for i in range(layers):
        for n in ("ln1", "ln2"):
            p |= {f"{i}.{n}.g": 1 + draw(width), f"{i}.{n}.b": draw(width)}
        for c in "qkvo":
            p |= {f"{i}.attn.w{c}": draw(width, width), f"{i}.attn.b{c}": draw(width)}
        p |= {f"{i}.ffn.w1": draw(ff, width), f"{i}.ffn.b1": draw(ff)}
        p |= {f"{i}.ffn.w2": draw(width, ff), f"{i}.ffn.b2": draw(width)}
    p |= {"lnf.g": 1 + draw(width), "lnf.b": draw(width)}
    if not tied:
        p["head.w"] = draw(vocab, width)
    return p


def random_batch(rows, columns, vocab, *, seed=0, padded=False, documents=False, **kw):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocab, (rows, columns + 1))
    docs = np.zeros((rows, columns + 1), np.int64)
    if documents:
        for r in range(rows):
            docs[r] = np.sort(rng.integers(0, 3, columns + 1))
    if padded:
        docs[-1, (columns + 1) // 2 :] = -1
        tokens[-1, (columns + 1) // 2 :] = 0
    return Batch(tokens, docs, **kw)


def torch_loss(params, batch: Batch, model: Model):
    """The same objective in plain torch, differentiable: whole attention matrices, python loops over documents."""
    p = params
    tokens = torch.as_tensor(batch.tokens_BT1)
    docs = batch.documents_BT1
    B, T = tokens.shape[0], tokens.shape[1] - 1
    position = np.zeros((B, T), np.int64)
    allowed = np.zeros((B, T, T), bool)
    ignored = np.zeros((B, T), bool)
    for b in range(B):
        for i in range(T):
            same = [j for j in range(T) if docs[b, j] == docs[b, i]]
            position[b, i] = i - same[0] if batch.document_mask else i
            for j in range(i + 1):
                allowed[b, i, j] = (not batch.document_mask) or docs[b, i] == docs[b, j]
            ignored[b, i] = docs[b, i] == -1 or docs[b, i + 1] == -1
            if batch.document_mask and docs[b, i] != docs[b, i + 1]:
                ignored[b, i] = True
    D = p["tok"].shape[1]
    H = model.heads
    drop_p, attention_p = model.dropout, model.attention_dropout

    def drop(x, layer, site):
        if not drop_p:
            return x
        keep = np.stack(
            [
                kept(
                    Fraction(drop_p), (batch.seed, batch.step), layer=layer, site=site,
                    row=batch.first_row + b, head=0, positions=T, channels=D,
                )
                for b in range(B)
            ]
        )  # fmt: skip
        return x * torch.as_tensor(keep) / (1 - drop_p)

    table = p["pos"] if model.positions is None else torch.as_tensor(model.positions)
    x = p["tok"][tokens[:, :T]] + table[torch.as_tensor(position)]
    for i in range(model.layers):
        n = F.layer_norm(x, (D,), p[f"{i}.ln1.g"], p[f"{i}.ln1.b"], 1e-5)
        q, k, v = (
            F.linear(n, p[f"{i}.attn.w{c}"], p[f"{i}.attn.b{c}"]).view(B, T, H, D // H).transpose(1, 2) for c in "qkv"
        )
        s = q @ k.transpose(2, 3) / (D // H) ** 0.5
        s = s.masked_fill(~torch.as_tensor(allowed)[:, None], float("-inf")).softmax(-1)
        if attention_p:
            keep = np.stack(
                [
                    [
                        kept(
                            Fraction(attention_p), (batch.seed, batch.step), layer=i, site=1,
                            row=batch.first_row + b, head=h, positions=T, channels=T,
                        )
                        for h in range(H)
                    ]
                    for b in range(B)
                ]
            )  # fmt: skip
            s = s * torch.as_tensor(keep) / (1 - attention_p)
        o = (s @ v).transpose(1, 2).reshape(B, T, D)
        x = x + drop(F.linear(o, p[f"{i}.attn.wo"], p[f"{i}.attn.bo"]), i, 2)
        n = F.layer_norm(x, (D,), p[f"{i}.ln2.g"], p[f"{i}.ln2.b"], 1e-5)
        a = F.gelu(
            F.linear(n, p[f"{i}.ffn.w1"], p[f"{i}.ffn.b1"]),
            approximate="tanh" if model.activation == "gelu_tanh" else "none",
        )
        x = x + drop(F.linear(a, p[f"{i}.ffn.w2"], p[f"{i}.ffn.b2"]), i, 3)
    n = F.layer_norm(x, (D,), p["lnf.g"], p["lnf.b"], 1e-5)
    logits = n @ (p["tok"] if model.tied else p["head.w"]).T
    targets = tokens[:, 1:].masked_fill(torch.as_tensor(ignored), -100)
    return F.cross_entropy(
        logits.reshape(B * T, -1), targets.reshape(-1), ignore_index=-100, label_smoothing=model.label_smoothing
    )


def torch_gradients(params, batch, model):
    leaves = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in params.items()}
    loss = torch_loss(leaves, batch, model)
    loss.backward()
    zero = {k: np.zeros(v.shape) for k, v in params.items()}
    return loss.item(), {k: zero[k] if v.grad is None else v.grad.numpy() for k, v in leaves.items()}
