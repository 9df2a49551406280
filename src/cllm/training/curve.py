"""The loss curve of a run as one self-contained SVG: no script, no font, no library; light and dark.

Every logged point counts: the training loss is drawn faintly as it was (of points that share a pixel the
first, least, largest and last), its moving average on top, the validation loss as dots, the learning rate as
a thin line on a scale of its own.
"""

from __future__ import annotations

import bisect
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from cllm.errors import RunError, UsageError
from cllm.training.events import Event, current, read_events, series

EVENTS, PICTURE = "events.jsonl", "loss.svg"
Scale = Literal["auto", "linear", "log"]
WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 72, 900, 104, 484
LEGEND = 84
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

STYLE = """
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:#57606a}
.title{font-size:19px;font-weight:600;fill:#1f2328}.small{font-size:12px}.page{fill:#ffffff}
.grid{stroke:#e4e8ec;stroke-width:1}.axis{stroke:#9aa4ae;stroke-width:1}
.raw{fill:none;stroke:#3b82c4;stroke-opacity:.32;stroke-width:1}.lone{fill:#3b82c4;fill-opacity:.4}
.ema{fill:none;stroke:#1f6fb5;stroke-width:2.25}
.val{fill:none;stroke:#d9730d;stroke-width:1.5;stroke-dasharray:1 4;stroke-linecap:round}
.dot{fill:#d9730d;stroke:#ffffff;stroke-width:1.5}.best{fill:none;stroke:#d9730d;stroke-width:1.5}
.lr{fill:none;stroke:#8250bf;stroke-width:1.1;stroke-opacity:.75}.rate{fill:#8250bf}.value{fill:#b45309;font-weight:600}
.alert{stroke:#cf222e;stroke-width:1;stroke-dasharray:3 3}.alarm{fill:#cf222e}
@media(prefers-color-scheme:dark){text{fill:#9aa4ae}.title{fill:#e8ecf0}.page{fill:#14181d}.grid{stroke:#262d35}
.axis{stroke:#55606b}.raw{stroke:#5ea9e6}.lone{fill:#5ea9e6}.ema{stroke:#6cb6f2}.val{stroke:#f0a04b}
.dot{fill:#f0a04b;stroke:#14181d}.best{stroke:#f0a04b}.lr{stroke:#b794f0}.rate{fill:#b794f0}.value{fill:#f5b266}
.alert{stroke:#ff7b72}.alarm{fill:#ff7b72}}
"""


def write_curve(
    run_dir: str | Path, *, x: Literal["step", "tokens"] = "step", y: Scale = "auto", x_scale: Scale = "linear"
) -> Path:
    """Draws `loss.svg` of a run from its events, replacing the older picture whole. RunError when it cannot."""
    run_dir = Path(run_dir)
    title = run_dir.resolve().name
    text = draw(read_events(run_dir / EVENTS), title=title, x=x, y=y, x_scale=x_scale)
    path, temporary = run_dir / PICTURE, run_dir / f".{PICTURE}.tmp"
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: the loss curve cannot be written: {error.strerror}") from error
    return path


class MovingAverage:
    """Exponential moving average whose weights sum to 1 from the first point on.

    half_life: in points, > 0; at point n (from 0) it is n/10 + 1 where that is less, so that the steep start
    is not drawn late. A non-finite value is left out (its place repeats the one before).
    """

    def __init__(self, half_life: float) -> None:
        self._half_life, self._points, self._total, self._weight = half_life, 0, 0.0, 0.0

    def add(self, value: float) -> float:
        """Takes the next point in; returns the average so far (NaN before the first finite one)."""
        if math.isfinite(value):
            keep = 0.5 ** (1 / min(self._half_life, 1 + self._points / 10))
            self._total = keep * self._total + (1 - keep) * value
            self._weight = keep * self._weight + (1 - keep)
        self._points += 1
        return self._total / self._weight if self._weight else math.nan


def smooth(values: Sequence[float], half_life: float) -> list[float]:
    """The moving average at each of the values."""
    average = MovingAverage(half_life)
    return [average.add(value) for value in values]


def half_life_for(points: int) -> float:
    """The smoothing of the picture: a sixtieth of the points, at least 3 and at most 200."""
    return min(200.0, max(3.0, points / 60))


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from data to pixels; log scales take positive data only."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value."""
        low, high, v = (math.log(u) if self.log else u for u in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((v - low) / (high - low) if high > low else 0.5)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values in reach: 1, 2, 5 times powers of ten."""
        if self.log and self.high / self.low >= 8:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            wide = self.high / self.low > 10 ** (about / 2)
            found = [m * 10.0**d for d in decades for m in ((1,) if wide else (1, 2, 5))]
        else:
            rough = (self.high - self.low) / about or 1.0
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
            first = math.ceil(self.low / step - 1e-9)
            found = [step * n for n in range(first, first + 2 * about + 2)]
        slack = 1e-9 * (abs(self.high) + abs(self.low))
        return [float(f"{v:.12g}") for v in found if self.low - slack <= v <= self.high + slack]


def draw(
    events: Iterable[Event],
    *,
    title: str = "",
    x: Literal["step", "tokens"] = "step",
    y: Scale = "auto",
    x_scale: Scale = "linear",
) -> str:
    """The SVG's text. x: what the horizontal axis counts; y, x_scale: "auto" is log where data spans a factor
    of 8 (y) or 10,000 (x)."""
    if x not in ("step", "tokens") or y not in ("auto", "linear", "log") or x_scale not in ("auto", "linear", "log"):
        raise UsageError(
            f"curve: expected x step or tokens and scales auto, linear or log, got {x!r}, {y!r}, {x_scale!r}"
        )
    kept = current(events)
    train, val, rate = _tame(kept, "loss"), _tame(kept, "loss", "eval"), _tame(kept, "lr")
    place = _places(kept, x)
    raw = [(place(s), v) for s, v in zip(*train, strict=True)]
    ema = list(zip((p for p, _ in raw), smooth(train[1], half_life_for(len(raw))), strict=True))
    dots = [(place(s), v) for s, v in zip(*val, strict=True) if math.isfinite(v)]
    rates = [(place(s), v) for s, v in zip(*rate, strict=True) if math.isfinite(v)]
    shown = [v for _, v in raw if math.isfinite(v)]
    parts = [f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>']
    parts.append(_text(LEFT, 36, title or "Training", "title"))
    if not shown and not dots:
        parts.append(_text(LEFT, 58, "no step has been logged yet"))
        return _svg(title, "no step has been logged yet", parts)

    xs = [p for p, _ in raw + dots]
    logarithmic = x_scale == "log" or (x_scale == "auto" and max(xs) >= 1e4 * max(min(xs), 1))
    across = _axis(xs if logarithmic else [0.0, *xs], LEFT, RIGHT, logarithmic, pad=0.0)
    heights = _reach(shown, ema, dots)
    low, high = min(heights), max(heights)
    up = _axis(heights, BOTTOM, TOP, y == "log" or (y == "auto" and 0 < low <= high / 8), pad=0.05)
    summary = _summary(ema, dots, "steps" if x == "step" else "tokens")
    parts.append(_text(LEFT, 58, summary))
    parts += _frame(across, up, x)
    parts.append(
        f'<clipPath id="in"><rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/></clipPath>'
    )
    parts.append('<g clip-path="url(#in)">')
    parts += _rate(rates, across)
    parts += _raw(raw, across, up)
    parts.append(
        _line("ema", [(across.at(p), up.at(v)) for p, v in ema if math.isfinite(v) and _fits(p, v, across, up)])
    )
    spots = [(across.at(p), up.at(v)) for p, v in dots if _fits(p, v, across, up)]
    parts.append(_line("val", spots))
    parts.append("</g>")
    parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in spots]
    parts += _best(dots, across, up)
    parts += _alerts(kept, place, across)
    parts += _legend(bool(dots), rates, half_life_for(len(raw)))
    return _svg(title, summary, parts)


def _tame(kept: list[Event], key: str, event: str = "step") -> tuple[list[int], list[float]]:
    """A series whose numbers no axis could hold are made infinite or zero."""
    steps, values = series(kept, key, event)
    return steps, [v if 1e-90 < abs(v) < 1e90 or v == 0 else 0.0 if abs(v) < 1 else math.inf for v in values]


def _places(kept: list[Event], x: str) -> Callable[[int], float]:
    """Step → place on the horizontal axis; tokens between logged steps are interpolated."""
    if x == "step":
        return float
    seen = {0: 0.0} | {step: count for step, count in zip(*_tame(kept, "tokens"), strict=True) if math.isfinite(count)}
    steps, tokens = sorted(seen), [seen[step] for step in sorted(seen)]

    def place(step: int) -> float:
        at = min(max(bisect.bisect_left(steps, step), 1), len(steps) - 1)
        if at < 1:
            return 0.0
        share = (step - steps[at - 1]) / (steps[at] - steps[at - 1])
        return tokens[at - 1] + min(1.0, share) * (tokens[at] - tokens[at - 1])

    return place


def _reach(shown: list[float], ema: list[tuple[float, float]], dots: list[tuple[float, float]]) -> list[float]:
    """The heights to show: all averages and dots, and the raw loss but for its last few spikes."""
    ordered = sorted(shown)
    top = ordered[min(len(ordered) - 1, math.ceil(0.997 * len(ordered)))] if ordered else -math.inf
    return [v for v in ordered if v <= top] + [v for _, v in ema + dots if math.isfinite(v)]


def _axis(values: list[float], start: float, end: float, log: bool, *, pad: float) -> Axis:
    """Reaches over the values and `pad` of their span more on both sides; linear when none is positive."""
    positive = [v for v in values if v > 0]
    if log and positive:
        low, high = min(positive), max(positive)
        grow = (high / low) ** pad if high > low else 2.0
        return Axis(low / grow, high * grow, start, end, True)
    low, high = min(values), max(values)
    room = pad * (high - low) if high > low else 0.5 * (abs(low) or 1)
    return Axis(low - room, high + room, start, end)


def _fits(p: float, v: float, across: Axis, up: Axis) -> bool:
    return (p > 0 or not across.log) and (v > 0 or not up.log)


def _frame(across: Axis, up: Axis, x: str) -> list[str]:
    parts = []
    for tick in up.ticks():
        h = up.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{h:.1f}" y2="{h:.1f}"/>')
        parts.append(_text(LEFT - 10, h + 4.5, figure(tick), anchor="end"))
    for tick in (t for t in across.ticks(8) if t == round(t)):
        w = across.at(tick)
        parts.append(f'<line class="axis" x1="{w:.1f}" x2="{w:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 5}"/>')
        parts.append(_text(w, BOTTOM + 22, figure(tick), anchor="middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 14, "steps" if x == "step" else "tokens seen", anchor="middle"))
    unit = "loss, nats per token" + (" (log scale)" if up.log else "")
    middle = (TOP + BOTTOM) / 2
    parts.append(
        f'<text class="small" text-anchor="middle" transform="translate(20 {middle:.0f}) rotate(-90)">{unit}</text>'
    )
    return parts


def _raw(raw: list[tuple[float, float]], across: Axis, up: Axis) -> list[str]:
    """A line, broken where the loss was not finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for p, v in raw:
        if math.isfinite(v) and _fits(p, v, across, up):
            runs[-1].append((across.at(p), up.at(v)))
        elif runs[-1]:
            runs.append([])
    alone = [f'<circle class="lone" cx="{r[0][0]:.1f}" cy="{r[0][1]:.1f}" r="2"/>' for r in runs if len(r) == 1]
    return alone + [_line("raw", run) for run in runs if len(run) > 1]


def _rate(rates: list[tuple[float, float]], across: Axis) -> list[str]:
    """The rate from 0 to its largest over the lowest quarter of the picture."""
    largest = max((v for _, v in rates), default=0.0)
    if largest <= 0:
        return []
    scale = Axis(0.0, largest, BOTTOM, BOTTOM - (BOTTOM - TOP) / 4)
    points = [(across.at(p), scale.at(v)) for p, v in rates if p > 0 or not across.log]
    return [_line("lr", points)]


def _best(dots: list[tuple[float, float]], across: Axis, up: Axis) -> list[str]:
    dots = [(p, v) for p, v in dots if _fits(p, v, across, up)]
    if not dots:
        return []
    p, v = min(dots, key=lambda dot: dot[1])
    a, b = across.at(p), up.at(v)
    anchor = "end" if a > RIGHT - 60 else "middle"
    above = b - 13 if b - 26 > TOP else b + 24
    return [
        f'<circle class="best" cx="{a:.1f}" cy="{b:.1f}" r="7.5"/>',
        _text(a, above, f"{v:.3f}", "value", anchor=anchor),
    ]


def _alerts(kept: list[Event], place: Callable[[int], float], across: Axis) -> list[str]:
    parts = []
    for event in kept:
        at = place(event["step"])
        if event["event"] == "alert" and across.low <= at <= across.high:
            w = across.at(at)
            what = event.get("kind") or event.get("text") or "alert"
            parts.append(f'<line class="alert" x1="{w:.1f}" x2="{w:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
            side = "end" if w > (LEFT + RIGHT) / 2 else "start"
            parts.append(_text(w + (-5 if side == "end" else 5), TOP + 14, str(what)[:40], "alarm small", anchor=side))
    return parts


def _legend(with_val: bool, rates: list[tuple[float, float]], half_life: float) -> list[str]:
    entries = [("raw", "training loss"), ("ema", f"moving average, half-life {half_life:.0f} points")]
    entries += [("dot", "validation loss")] if with_val else []
    largest = max((v for _, v in rates), default=0.0)
    entries += [("lr", f"learning rate (highest {figure(largest)})")] if largest > 0 else []
    parts, at = [], float(LEFT)
    for kind, label in entries:
        if kind == "dot":
            parts.append(f'<circle class="dot" cx="{at + 9:.1f}" cy="{LEGEND - 4}" r="4"/>')
        else:
            parts.append(f'<path class="{kind}" d="M{at:.1f} {LEGEND - 4}h18"/>')
        parts.append(_text(at + 25, LEGEND, label, "small"))
        at += 25 + 6.6 * len(label) + 22
    return parts


def _summary(ema: list[tuple[float, float]], dots: list[tuple[float, float]], unit: str) -> str:
    said = []
    if ema:
        said.append(f"training {ema[-1][1]:.3f} nats per token after {figure(ema[-1][0])} {unit}")
    if dots:
        said.append(f"validation {dots[-1][1]:.3f}")
        best = min(v for _, v in dots)
        said += [f"best {best:.3f}"] if best < dots[-1][1] else []
    return " · ".join(said)


def figure(value: float) -> str:
    """A number for an axis: 1,200 · 0.25 · 40k is 40,000 · 3 M · 6·10⁻⁴."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3:
        power = math.floor(math.log10(size) + 1e-12)
        factor = f"{value / 10.0**power:.3g}"
        return ("" if factor == "1" else f"{factor}·") + f"10{str(power).translate(SUPERSCRIPT)}"
    for unit, name in ((1e9, " G"), (1e6, " M")):
        if size >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def _line(kind: str, points: list[tuple[float, float]]) -> str:
    """A path through the points; of those in one column of a pixel the first, least, largest and last."""
    if len(points) > 2 * WIDTH:
        columns: dict[int, list[tuple[float, float]]] = {}
        for point in points:
            columns.setdefault(math.floor(point[0]), []).append(point)
        points = []
        for column in columns.values():
            height = [point[1] for point in column]
            places = {0, height.index(min(height)), height.index(max(height)), len(column) - 1}
            points += [column[place] for place in sorted(places)]
    return f'<path class="{kind}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in points)}"/>' if points else ""


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{side}>{escape(text)}</text>'


def _svg(title: str, summary: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img">\n<title>{escape(f"Loss of {title}" if title else "Loss")}</title>\n'
        f"<desc>{escape(summary)}</desc>\n"
        f"<style>{STYLE}</style>\n"
    )
    return head + "\n".join(part for part in parts if part) + "\n</svg>\n"
