"""`cllm bench decode`: tokens a second of cached generation, beside the plain torch GPT and transformers' GPT-2.

Every candidate reads the same tokens, one at a time and a batch side by side, from the same length of cache on; what
is timed is the network, without sampling. The peers keep their cache in tensors allocated once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cllm import config as settings
from cllm.bench.machine import memory_bandwidth
from cllm.bench.measure import Table, Timing, interleave, ratio
from cllm.bench.peers import Block, PlainGPT
from cllm.engine import native
from cllm.engine.quantise import KINDS
from cllm.errors import UsageError
from cllm.model.decode import Decoder
from cllm.model.model import Model

FILLED, COUNT = 64, 16  # tokens in the cache before, and tokens a sample
PEER = "eager bf16"
PEERS = {"eager fp32": torch.float32, PEER: torch.bfloat16}

Reader = Callable[[], object]


class CachedGPT:
    """Cached decoding of the plain model, eagerly, in the model's own type."""

    def __init__(self, model: PlainGPT, batch: int, context: int) -> None:
        self.model = model.eval()
        block = model.blocks[0]
        assert isinstance(block, Block)
        shape = (len(model.blocks), 2, batch, block.heads, context, model.tok.weight.shape[1] // block.heads)
        self.cache = torch.zeros(shape, dtype=model.tok.weight.dtype)
        self.length = 0

    @torch.inference_mode()
    def read(self, tokens_B1: Tensor) -> Tensor:
        """Append one token to each sequence; the logits [B, 1, V] behind it."""
        model, at = self.model, self.length
        x = model.tok(tokens_B1) + model.pos(torch.tensor([at]))
        for block, (keys, values) in zip(model.blocks, self.cache, strict=True):
            assert isinstance(block, Block)
            n = block.ln1(x)
            b, _, d = n.shape
            q, k, v = (f(n).view(b, 1, block.heads, -1).transpose(1, 2) for f in (block.q, block.k, block.v))
            keys[:, :, at : at + 1], values[:, :, at : at + 1] = k, v
            a = F.scaled_dot_product_attention(q, keys[:, :, : at + 1], values[:, :, : at + 1])
            x = x + block.o(a.transpose(1, 2).reshape(b, 1, d))
            h = F.gelu(block.up(block.ln2(x)), approximate="tanh" if block.activation == "gelu_tanh" else "none")
            x = x + block.down(h)
        self.length += 1
        return model.head(model.lnf(x))  # type: ignore[no-any-return]


def _ours(model: Model, batch: int, kind: str, tokens: Tensor) -> tuple[Reader, Decoder]:
    decoder = Decoder(model, batch, kind)
    decoder.read(tokens[:, :FILLED])

    def read() -> None:
        decoder.cache.length = FILLED
        for i in range(FILLED, FILLED + COUNT):
            decoder.read(tokens[:, i : i + 1])

    return read, decoder


def _eager(config: settings.ModelConfig, model: Model, dtype: torch.dtype, tokens: Tensor) -> Reader:
    sizes: dict[str, Any] = {
        key: getattr(config, key) for key in ("layers", "width", "heads", "ff", "context", "vocab")
    }
    plain = PlainGPT(**sizes, tied=config.tied, activation=config.activation, dtype=dtype)
    plain.load_named({name: value.to(dtype) for name, value in model.params.items()})
    cached = CachedGPT(plain, tokens.shape[0], config.context)
    cached.length = FILLED  # zeros: their time is that of any other numbers

    def read() -> None:
        cached.length = FILLED
        for i in range(FILLED, FILLED + COUNT):
            cached.read(tokens[:, i : i + 1])

    return read


def _transformers(package: Any, config: settings.ModelConfig, tokens: Tensor) -> Reader:
    model = package.GPT2LMHeadModel(
        package.GPT2Config(
            vocab_size=config.vocab, n_positions=config.context, n_embd=config.width, n_layer=config.layers,
            n_head=config.heads, n_inner=config.ff, bos_token_id=None, eos_token_id=None,
        )
    ).to(torch.bfloat16).eval()  # fmt: skip

    cache = package.DynamicCache()
    with torch.inference_mode():
        model(tokens[:, :FILLED], past_key_values=cache, use_cache=True)

    @torch.inference_mode()
    def read() -> None:
        for i in range(FILLED, FILLED + COUNT):
            model(tokens[:, i : i + 1], past_key_values=cache, use_cache=True)
        cache.crop(-COUNT)

    return read


def run(preset: str, *, batch: int, rounds: int) -> Table:
    """One table for a preset and a batch; each row is a kind of weights or a peer."""
    config = settings.load(preset=preset).model
    if not 1 <= batch <= 16:
        raise UsageError(f"--batch: expected 1 to 16, got {batch}")
    if config.context < FILLED + COUNT:
        raise UsageError(f"--preset {preset}: its context of {config.context} is shorter than {FILLED + COUNT} tokens")
    table = Table(
        f"decode-{preset}-b{batch}",
        f"cached decoding, {preset}, batch {batch}: {COUNT} tokens behind {FILLED}, no sampling",
    )
    model = Model(config).initialise(1)
    tokens = torch.randint(config.vocab, (batch, FILLED + COUNT), generator=torch.Generator().manual_seed(0))
    readers: dict[str, Reader] = {}
    moved: dict[str, float] = {}  # bytes a token: matrices, and keys and values so far
    cache = 2 * 4 * config.layers * batch * config.width * (FILLED + COUNT / 2)
    for kind in KINDS:
        readers[f"cllm {kind}"], decoder = _ours(model, batch, kind, tokens)
        if decoder.weight_bytes is not None:
            moved[f"cllm {kind}"] = decoder.weight_bytes + cache
    for name, dtype in PEERS.items():
        readers[name] = _eager(config, model, dtype, tokens)
    package = table.peer("transformers")
    if package is not None:
        readers["transformers bf16"] = _transformers(package, config, tokens)
    timings = interleave(readers, rounds=rounds, warmup=2)
    bandwidth = memory_bandwidth(rounds=3)
    table.facts["read_gb_s"] = bandwidth.read / 1e9
    table.facts["native"] = native.level()
    for name, timing in timings.items():
        a_token = Timing.of([s / COUNT for s in timing.samples])
        table.add_timing(
            name,
            a_token,
            tokens_per_s=batch / a_token.median_s,
            ratio=ratio(timings[PEER], timing).median,
            mb=moved[name] / 1e6 if name in moved else None,
            memory_fraction=moved[name] / a_token.median_s / bandwidth.read if name in moved else None,
        )
    table.notes += [
        "ratio: tokens a second over those of eager bf16, paired by round. mb: weights and cache that a token reads.",
        "memory_fraction: of this machine's reading speed on 256 MB; above 100 % where the weights stay in cache.",
    ]
    return table
