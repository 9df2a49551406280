"""Charts on a terminal and in files, for the commands that have one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cllm.training.chart import Chart


def check_target(path: Path | None) -> None:
    """Refuse a picture's file before any work. Raises UsageError."""
    from cllm.errors import UsageError

    if path is None:
        return
    if path.suffix.lower() != ".svg":
        raise UsageError(f"--plot {path}: the picture is an SVG; name it {path.with_suffix('.svg')}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise UsageError(f"--plot {path}: is a folder")


def write_svg(path: Path, chart: Chart) -> None:
    """Write the picture whole, or not at all (an older one is replaced)."""
    import os

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(chart.svg(), encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def show(chart: Chart, height: int = 16) -> None:
    """Print the chart, in colours on a terminal and in letters elsewhere."""
    from rich.console import Console
    from rich.text import Text

    from cllm.training.chart import ANSI, LETTERS

    console = Console(highlight=False, soft_wrap=True)
    width = max(24, min(console.width - 14, 100))
    lines = [line for line in chart.series if not line.faint]
    if not console.is_terminal or console.no_color:
        print(chart.terminal(width, height))
        if len(lines) > 1:
            print("   ".join(f"{LETTERS[line.colour % len(LETTERS)]} {line.name}" for line in lines))
        return
    for cells in chart.characters(width, height):
        text = Text()
        for glyph, colour in cells:
            text.append(glyph, style=None if colour is None else ANSI[colour % len(ANSI)])
        console.print(text)
    if len(lines) > 1:
        legend = Text()
        for line in lines:
            legend.append(f"━━ {line.name}   ", style=ANSI[line.colour % len(ANSI)])
        console.print(legend)
