"""`cllm runs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cllm.training.runs import Summary


def runs(
    *folders: Path,
    plot: Path | None = None,
    curve: Literal["validation", "training", "bits"] | None = None,
    x: Literal["step", "tokens"] = "step",
    json: bool = False,
) -> int:
    """List runs, and compare them: progress, losses, speed, how each ended; curves; settings that differ.

    With several folders the runs in them are compared: their curves in one picture, and the settings in which they
    differ. With one, they are listed; --plot draws them all.

    Examples:

      cllm runs

      cllm runs runs/a runs/b --plot compare.svg

      cllm runs experiments --json

    Parameters
    ----------
    folders: Path
        Run directories, or folders to look in, three levels deep. Default: runs.
    plot: Path
        Draw the curves of all these runs to this file, an SVG.
    curve: str
        What to draw. Default: the validation loss; bits per byte where tokenizers differ.
    x: str
        Draw over steps, or over tokens seen.
    json: bool
        Print one JSON object.
    """
    from cllm.cli.pictures import check_target, show, write_svg
    from cllm.errors import UsageError
    from cllm.training.compare import differences, overlay, short_names
    from cllm.training.runs import find_runs

    check_target(plot)
    places = list(folders) or [Path("runs")]
    for folder in places:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    found = list({run.path: run for folder in places for run in find_runs(folder)}.values())
    paths = [Path(run.path) for run in found]
    compared = len(places) > 1 and len(found) > 1
    readable = [path for path, run in zip(paths, found, strict=True) if not run.ended.startswith("unreadable")]
    differ = differences(readable) if compared else {}
    chart, notes = overlay(readable, curve, x) if readable and (compared or plot or curve) else (None, [])
    if plot is not None:
        if chart is None:
            raise UsageError(f"{', '.join(map(str, places))}: no run to draw")
        write_svg(plot, chart)
    if json:
        import msgspec

        told: dict[str, Any] = {"runs": [run.to_dict() for run in found]}
        if compared:
            told["differences"] = {
                key: dict(zip(map(str, readable), values, strict=True)) for key, values in differ.items()
            }
        print(msgspec.json.encode(told).decode())
        return 0
    if not found:
        print(f"no run in {places[0]}. Train one with: cllm train YOUR_TEXT.txt --out {places[0] / 'first'}")
        return 0
    _table(found)
    if chart is not None:
        print(f"\n{chart.y_label}, over {chart.x_label}")
        show(chart)
        print("\n".join([chart.subtitle, *notes]))
    if compared:
        _differences(short_names(readable), differ)
    if plot is not None:
        print(f"picture: {plot}")
    return 0


def _table(found: list[Summary]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cllm.training.runs import sparkline

    table = Table(box=None, header_style="bold")
    table.add_column("run", overflow="fold")
    for column in ("preset", "step", "best loss", "bits/byte", "curve", "tokens/s"):
        table.add_column(column, justify="right", no_wrap=True)
    if with_mfu := any(run.mfu is not None for run in found):
        table.add_column("MFU", justify="right", no_wrap=True)
    table.add_column("ended", overflow="fold")
    for run in found:
        cells = [
            escape(run.path),
            run.preset,
            f"{run.step:,}/{run.steps:,}" if run.steps else f"{run.step:,}",
            "–" if run.best_loss is None else f"{run.best_loss:.4f}",
            "–" if run.bits_per_byte is None else f"{run.bits_per_byte:.3f}",
            sparkline(run.losses, 8),
            "–" if run.tokens_per_s is None else f"{run.tokens_per_s:,.0f}",
        ]
        cells += ["–" if run.mfu is None else f"{run.mfu:.1%}"] if with_mfu else []
        table.add_row(*cells, escape(run.ended))
    Console().print(table)


def _differences(names: list[str], differ: dict[str, list[Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not differ:
        print("\nsettings: all the same")
        return
    table = Table(box=None, header_style="bold", title="settings that differ", title_justify="left")
    table.add_column("setting", no_wrap=True)
    for name in names:
        table.add_column(escape(name), overflow="fold")
    for key, values in differ.items():
        table.add_row(key, *("–" if value is None else escape(str(value)) for value in values))
    print()
    Console().print(table)
