"""`cllm find-lr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cllm.cli.arguments import Text, data_names


def find_lr(
    *data: Text,
    run: Path | None = None,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    preset: str | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set")] = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    plot: Path | None = None,
    json: bool = False,
) -> int:
    """Find a learning rate: train a few steps with the rate rising until the loss runs away.

    Takes train's arguments. The steps are real ones, on a model that is thrown away: no run is touched, nothing is
    left behind but the picture. Ctrl-C stops early and shows what there is.

    Examples:

      cllm find-lr book.txt --preset nano

      cllm find-lr shakespeare --run runs/demo.toml --plot find-lr.svg

    Parameters
    ----------
    data: str
        Text files, folders, globs, - for standard input, or a named corpus (shakespeare).
    run: Path
        A run file (TOML); see runs/ for some.
    start: Path
        Start from the weights, model and tokenizer of this run.
    preset: str
        The model's size: nano, small (default), seed, medium, large or gpt2.
    set: list[str]
        One setting, as in --set train.batch=8; may be repeated.
    device: str
        auto takes a GPU where there is one.
    low: float
        The first rate.
    high: float
        The last rate.
    steps: int
        Steps from the first rate to the last.
    plot: Path
        Write the picture to this file, an SVG.
    json: bool
        Print one JSON object.
    """
    import sys

    names = data_names(data, find_lr)
    from cllm import api
    from cllm.cli.pictures import check_target, show, write_svg

    settings = list(set or [])
    if device is not None:
        settings.append(f"device={device}")
    check_target(plot)
    found = api.find_lr(
        names, run=run, preset=preset, start=start, set=settings, low=low, high=high, steps=steps, quiet=json
    )
    chart = found.chart(f"Learning-rate range test of {', '.join(names) or run}")
    if plot is not None:
        write_svg(plot, chart)
    if json:
        import msgspec

        print(msgspec.json.encode(found.to_dict()).decode())
    else:
        show(chart)
        if found.still_falling:
            print(
                f"The loss was still falling at {found.lr[-1]:.2g}: where it turns is not known. Give a higher --high."
            )
        if found.suggested is None:
            print("No rate to suggest: " + ("it ended too early." if found.lowest else "the loss never fell."))
        else:
            print(
                f"steepest fall at {found.steepest:.2g}, lowest loss at {found.lowest:.2g}: "
                f"try --set optim.lr={found.suggested:.2g}"
            )
        if plot is not None:
            print(f"picture: {plot}")
    if found.ended == "interrupted":
        print(f"interrupted after {len(found.lr)} of {steps} steps", file=sys.stderr)
        return 130
    return 0 if found.suggested is not None else 1
