"""`cllm eval`."""

from __future__ import annotations

from pathlib import Path

from cllm.cli.arguments import Text, data_names


def evaluate(
    run: Path,
    /,
    *data: Text,
    checkpoint: str = "latest",
    batch: int = 16,
    ngrams: bool = False,
    json: bool = False,
) -> int:
    """Score text with a trained model: loss, perplexity, bits per byte, accuracy.

    Every token is a target exactly once; rows are as long as in training.

    Examples:

      cllm eval runs/book other-book.txt

      cllm eval runs/shakespeare --checkpoint best --json

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
    with bar_for("rows scored") as bar:
        score = api.evaluate(api.Run(run, checkpoint), names or None, batch=batch, progress=bar)
    others = api.ngrams(run) if ngrams else {}
    if json:
        import msgspec

        found = score.to_dict() | ({"ngram_bits_per_byte": others} if ngrams else {})
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
    if others and score.bits_per_byte is not None:
        print("bits per byte beside smoothed byte n-gram models of the same training part:")
        for n, value in others.items():
            side = "below" if score.bits_per_byte < value else "ABOVE"
            print(f"  n = {n}         {value:.4f}   the model is {side} by {abs(value - score.bits_per_byte):.4f}")
    return 0
