"""A model of ours for the Language Model Evaluation Harness (Gao et al. 2021; the package `lm-eval`, an extra).

import cllm, lm_eval
from cllm.interop.lm_eval import harness_model
run = cllm.load("runs/book")
lm_eval.simple_evaluate(model=harness_model(run.model, run.tokenizer), tasks=["lambada_openai"])
"""

from __future__ import annotations

from typing import Any

from cllm.errors import MissingExtraError
from cllm.evaluation.continuation import Scorer
from cllm.generation.generate import Request, generate
from cllm.model.model import Model
from cllm.text import Tokenizer


def harness_model(model: Model, tokenizer: Tokenizer, *, batch: int = 16, max_tokens: int = 256) -> Any:
    """An `lm_eval.api.model.LM` that scores and generates with `model`, greedily, as the harness asks.

    batch: rows scored at a time.  max_tokens: of a generation that the task does not limit.
    Raises MissingExtraError without the harness.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise MissingExtraError("the evaluation harness adapter", "pip install 'cllm[lm-eval]'") from None

    class Harness(LM):  # type: ignore[misc]
        """loglikelihood, loglikelihood_rolling and generate_until of one model."""

        def __init__(self) -> None:
            super().__init__()
            self.scorer = Scorer(model, tokenizer, batch=batch)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return [(s.nats, s.greedy) for s in self.scorer.score([r.args for r in requests])]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            return self.scorer.rolling([r.args[0] for r in requests])

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return [self._generate(*r.args) for r in requests]

        def _generate(self, context: str, options: dict[str, Any]) -> str:
            until = options.get("until") or []
            temperature = float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0
            count = min(int(options.get("max_gen_toks", max_tokens)), model.config.context - 1)
            # the prompt's end is kept, with room for the answer
            ids = tokenizer.encode(context)
            room = max(1, model.config.context - count)
            prompt = context if len(ids) <= room else tokenizer.decode(ids[-room:])
            request = Request.of(
                max_tokens=count, temperature=temperature, stop=[until] if isinstance(until, str) else list(until)
            )
            return "".join(piece.text for piece in generate(model, tokenizer, prompt, request))

    return Harness()
