"""`cllm eval`."""

from __future__ import annotations

import sys
from pathlib import Path


def evaluate(
    run: Path,
    /,
    *data: str,
    checkpoint: str = "latest",
    batch: int = 16,
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
    json: bool
        Print one JSON object.
    """
    from cllm import api
    from cllm.training.progress import bar_for

    with bar_for("rows scored") as bar:
        score = api.evaluate(api.Run(run, checkpoint), list(data) or None, batch=batch, progress=bar)
    if json:
        import msgspec

        print(msgspec.json.encode(score.to_dict()).decode())
        return 0
    bits = "–  (the tokenizer does not give the text back exactly)"
    if score.bits_per_byte is not None:
        bits = f"{score.bits_per_byte:.4f}"
    print(f"loss            {score.loss:.4f} nats a token")
    print(f"perplexity      {score.perplexity:.2f}")
    print(f"bits per byte   {bits}")
    print(f"accuracy        {score.accuracy:.2%}")
    print(f"in the top 5    {score.top_accuracy:.2%}")
    print(f"targets         {score.targets:,}", file=sys.stderr)
    return 0
