"""Names, shapes and counts of the parameters (docs/formats.md lists the names)."""

from __future__ import annotations

from cllm.config import ModelConfig, has_learned_positions
from cllm.engine.buffers import Entry, Layout

MATRIX, VECTOR = "matrix", "vector"  # optimiser groups: with and without weight decay
POSITIONS_MIX, SYMMETRY_BIAS = "positions.mix", "symmetry.beta"


def hidden_matrix(name: str) -> bool:
    """Whether the tensor is a matrix of a layer (not an embedding, position table or output matrix): Muon's."""
    return name.partition(".")[0].isdigit() and name.rpartition(".")[2].startswith("w")


def layout(config: ModelConfig) -> Layout:
    """The flat layout of all parameters: first the matrices (decayed), then biases, norms and positions.

    V·D + T·D + L(4D² + 2DF + F + 9D) + 2D parameters, and V·D more when the head is untied. T·D only with a learned
    position table; a trainable mix of position codes has 4 weights, a trainable symmetry bias 1.
    """
    d, f = config.width, config.ff
    matrices = [Entry("tok", (config.vocab, d), MATRIX)]
    vectors = [Entry("pos", (config.context, d), VECTOR)] if has_learned_positions(config) else []
    if config.positions_mix_trainable:
        vectors.append(Entry(POSITIONS_MIX, (4,), VECTOR))
    if config.symmetry_bias_trainable:
        vectors.append(Entry(SYMMETRY_BIAS, (1,), VECTOR))
    for i in range(config.layers):
        matrices += [
            Entry(f"{i}.attn.wq", (d, d), MATRIX),
            Entry(f"{i}.attn.wk", (d, d), MATRIX, joined=True),
            Entry(f"{i}.attn.wv", (d, d), MATRIX, joined=True),
            Entry(f"{i}.attn.wo", (d, d), MATRIX),
            Entry(f"{i}.ffn.w1", (f, d), MATRIX),
            Entry(f"{i}.ffn.w2", (d, f), MATRIX),
        ]
        vectors += [
            Entry(f"{i}.ln1.g", (d,), VECTOR),
            Entry(f"{i}.ln1.b", (d,), VECTOR),
            Entry(f"{i}.attn.bq", (d,), VECTOR),
            Entry(f"{i}.attn.bk", (d,), VECTOR, joined=True),
            Entry(f"{i}.attn.bv", (d,), VECTOR, joined=True),
            Entry(f"{i}.attn.bo", (d,), VECTOR),
            Entry(f"{i}.ln2.g", (d,), VECTOR),
            Entry(f"{i}.ln2.b", (d,), VECTOR),
            Entry(f"{i}.ffn.b1", (f,), VECTOR),
            Entry(f"{i}.ffn.b2", (d,), VECTOR),
        ]
    vectors += [Entry("lnf.g", (d,), VECTOR), Entry("lnf.b", (d,), VECTOR)]
    if not config.tied:
        matrices.append(Entry("head.w", (config.vocab, d), MATRIX))
    return Layout(matrices + vectors)


def flops_per_token(config: ModelConfig, sequence: int) -> int:
    """Floating-point operations of one training token, forward and backward: 6 a weight of each matrix product
    (2 forward, 4 backward), and the same for the causal half of the attention scores.

    PaLM's counting (Chowdhery et al. 2022, appendix B), the causal half counted once, element-wise work left out.
    """
    d, f = config.width, config.ff
    weights = config.layers * (4 * d * d + 2 * d * f) + config.vocab * d
    attention = config.layers * 2 * d * (sequence + 1) // 2
    return 6 * (weights + attention)
