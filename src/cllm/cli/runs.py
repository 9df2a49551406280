"""`cllm runs`."""

from __future__ import annotations

from pathlib import Path


def runs(folder: Path = Path("runs"), /, *, json: bool = False) -> int:
    """List the runs below a folder: progress, losses, speed, how each ended.

    Examples:

      cllm runs

      cllm runs experiments --json

    Parameters
    ----------
    folder: Path
        Where to look, three levels deep.
    json: bool
        Print one JSON object.
    """
    from cllm.errors import UsageError
    from cllm.training.runs import find_runs, sparkline

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    found = find_runs(folder)
    if json:
        import msgspec

        print(msgspec.json.encode({"runs": [run.to_dict() for run in found]}).decode())
        return 0
    if not found:
        print(f"no run in {folder}. Train one with: cllm train YOUR_TEXT.txt --out {folder / 'first'}")
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("run", overflow="fold")
    for column in ("preset", "step", "best loss", "bits/byte", "curve", "tokens/s"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("ended", overflow="fold")
    for run in found:
        table.add_row(
            escape(run.path),
            run.preset,
            f"{run.step:,}/{run.steps:,}" if run.steps else f"{run.step:,}",
            "–" if run.best_loss is None else f"{run.best_loss:.4f}",
            "–" if run.bits_per_byte is None else f"{run.bits_per_byte:.3f}",
            sparkline(run.losses, 8),
            "–" if run.tokens_per_s is None else f"{run.tokens_per_s:,.0f}",
            escape(run.ended),
        )
    Console().print(table)
    return 0
