"""`cllm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cllm.cli.arguments import Text, data_names

if TYPE_CHECKING:
    from cllm.api import Run


def evaluate(
    run: Path,
    /,
    *data: Text,
    checkpoint: str = "latest",
    batch: int = 16,
    stride: int | None = None,
    weights: Literal["fp32", "bf16", "int8"] | None = None,
    choices: Path | None = None,
    ngrams: bool = False,
    json: bool = False,
) -> int:
    """Score text with a trained model: loss, perplexity, bits per byte, accuracy.

    Every token is a target exactly once; rows are as long as in training.

    Examples:

      cllm eval runs/book other-book.txt

      cllm eval runs/shakespeare --checkpoint best --json

      cllm eval runs/book --stride 64

      cllm eval runs/book --choices questions.jsonl

      cllm eval runs/book --weights int8

    Parameters
    ----------
    run: Path
        The run directory.
    data: str
        Text files, folders, globs or a named corpus. Default: the run's own validation part.
    checkpoint: str
        latest, best, or a checkpoint's name.
    batch: int
        Rows scored at a time.
    stride: int
        Sliding window: rows overlap and only their last STRIDE tokens count, so each is scored with a long context.
    weights: str
        Score with the matrices as cllm generate --weights stores them, and say what that costs against fp32.
    choices: Path
        Answer multiple-choice questions instead, one a line: {"prompt": "…", "choices": ["…", "…"], "answer": 0}.
    ngrams: bool
        Also score smoothed byte n-gram models (n = 1, 2, 3, 5) fitted on the run's own training part.
    json: bool
        Print one JSON object.
    """
    names = data_names(data, evaluate)
    from cllm import api
    from cllm.errors import UsageError
    from cllm.training.progress import bar_for

    if batch < 1:
        raise UsageError(f"--batch: expected a whole number ≥ 1, got {batch}")
    if ngrams and data:
        raise UsageError("--ngrams: they are fitted and scored on the run's own parts; leave DATA out")
    if choices is not None:
        if data or ngrams or stride is not None or weights is not None:
            raise UsageError(
                "--choices: questions are scored one by one; leave DATA, --stride, --weights and --ngrams out"
            )
        return _choices(api.Run(run, checkpoint), choices, batch, json)
    model = api.Run(run, checkpoint)
    with bar_for("rows scored") as bar:
        score = api.evaluate(model, names or None, batch=batch, stride=stride, weights=weights, progress=bar)
    cost: dict[str, Any] = {}
    if weights is not None:
        with bar_for("rows scored with fp32 weights") as bar:
            whole = api.evaluate(model, names or None, batch=batch, stride=stride, weights="fp32", progress=bar)
        cost = {
            "weights": weights,
            "fp32": {"loss": whole.loss, "perplexity": whole.perplexity},
            "loss_difference": score.loss - whole.loss,
            "perplexity_difference": score.perplexity - whole.perplexity,
        }
    others = api.ngrams(run) if ngrams else {}
    if json:
        import msgspec

        found = score.to_dict() | cost | ({"ngram_bits_per_byte": others} if ngrams else {})
        print(msgspec.json.encode(found).decode())
        return 0
    bits = "–  (the tokenizer does not give the text back exactly)"
    if score.bits_per_byte is not None:
        bits = f"{score.bits_per_byte:.4f}"
    print(f"loss            {score.loss:.4f} nats a token")
    print(f"perplexity      {score.perplexity:.2f}")
    print(f"bits per byte   {bits}")
    print(f"accuracy        {score.accuracy:.2%}")
    print(f"in the top 5    {score.top_accuracy:.2%}")
    print(f"targets         {score.targets:,}")
    if cost:
        loss, perplexity = cost["loss_difference"], cost["perplexity_difference"]
        print(f"weights         {weights}: loss {loss:+.5f} nats, perplexity {perplexity:+.3f} against fp32")
    if others and score.bits_per_byte is not None:
        print("bits per byte beside smoothed byte n-gram models of the same training part:")
        for n, value in others.items():
            side = "below" if score.bits_per_byte < value else "ABOVE"
            print(f"  n = {n}         {value:.4f}   the model is {side} by {abs(value - score.bits_per_byte):.4f}")
    return 0


def _choices(run: Run, file: Path, batch: int, json: bool) -> int:
    from cllm import api
    from cllm.training.progress import bar_for

    with bar_for("choices scored") as bar:
        found = api.choices(run, file, batch=batch, progress=bar)
    if json:
        import msgspec

        print(msgspec.json.encode(found.to_dict()).decode())
        return 0
    print(f"accuracy            {found.accuracy:.2%} ± {found.stderr:.2%}   (chance {found.chance:.2%})")
    print(f"accuracy by byte    {found.accuracy_by_byte:.2%}")
    print(f"questions           {found.questions:,}")
    if found.cut:
        print(f"prompts cut         {found.cut:,} were longer than the context; their end was kept")
    return 0
