"""The lengths of documents as one self-contained SVG: no script, no font, no library; light and dark."""

from __future__ import annotations

from html import escape

from cllm.data.inspect import Inspection

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 72, 924, 112, 470

STYLE = """
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:#57606a}
.title{font-size:19px;font-weight:600;fill:#1f2328}.small{font-size:12px}.page{fill:#ffffff}.count{fill:#1f2328}
.grid{stroke:#e4e8ec;stroke-width:1}.axis{stroke:#9aa4ae;stroke-width:1}
.documents{fill:#3b82c4}.share{fill:#d9730d;stroke:#ffffff;stroke-width:1.5}
.shares{fill:none;stroke:#d9730d;stroke-width:1.5}.median{stroke:#8250bf;stroke-width:1.5;stroke-dasharray:4 3}
.middle{fill:#8250bf;font-weight:600}
@media(prefers-color-scheme:dark){text{fill:#9aa4ae}.title,.count{fill:#e8ecf0}.page{fill:#14181d}.grid{stroke:#262d35}
.axis{stroke:#55606b}.documents{fill:#5ea9e6}.share{fill:#f0a04b;stroke:#14181d}.shares{stroke:#f0a04b}
.median{stroke:#b794f0}.middle{fill:#b794f0}}
"""


def draw(found: Inspection) -> str:
    """Bars: documents by length, each bar a doubling; dots: the share of all characters in documents up to there;
    a dashed line at the median."""
    bars = found.histogram()
    lengths, total = found.lengths, max(found.characters, 1)
    step = (RIGHT - LEFT) / len(bars)
    most = max(count for *_, count in bars)
    top = _round_up(most)
    title = ", ".join(found.names)
    title = title if len(title) <= 70 else title[:69] + "…"
    summary = (
        f"{len(lengths):,} documents · {found.characters:,} characters · median {found.quantile(0.5):,}"
        f" · longest {int(lengths.max()):,}" + (f" · {found.duplicates:,} copies" if found.duplicates else "")
    )
    parts = [
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        _text(LEFT, 36, title, "title"),
        _text(LEFT, 58, summary),
        f'<rect class="documents" x="{LEFT}" y="76" width="14" height="10" rx="2"/>',
        _text(LEFT + 22, 86, "documents of that length", "small"),
        f'<circle class="share" cx="{LEFT + 210}" cy="81" r="4"/>',
        _text(LEFT + 222, 86, "share of all characters in documents up to that length (0 to 100 %)", "small"),
    ]
    for tick in sorted({0, *(round(top * q / 4) for q in range(1, 5))}):
        h = BOTTOM - (BOTTOM - TOP) * tick / top
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{h:.1f}" y2="{h:.1f}"/>')
        parts.append(_text(LEFT - 10, h + 4.5, f"{tick:,}", anchor="end"))
    dots = []
    every = 1 + len(bars) // 14
    for n, (low, high, count) in enumerate(bars):
        x, height = LEFT + n * step, (BOTTOM - TOP) * count / top
        if count:
            label = f"{low:,} to {high:,} characters: {count:,} documents"
            parts.append(
                f'<rect class="documents" x="{x + step * 0.08:.1f}" y="{BOTTOM - height:.1f}" '
                f'width="{step * 0.84:.1f}" height="{height:.1f}" rx="2"><title>{label}</title></rect>'
            )
        if n % every == 0:
            parts.append(_text(x, BOTTOM + 20, _short(low), "small", "middle"))
        share = int(lengths[lengths <= high].sum()) / total
        dots.append((x + step, BOTTOM - (BOTTOM - TOP) * share, share, high))
    parts.append(_text(RIGHT, BOTTOM + 20, _short(bars[-1][1] + 1), "small", "middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in [(LEFT, BOTTOM, 0, 0), *dots])
    parts.append(f'<path class="shares" d="M{path}"/>')
    parts += [
        f'<circle class="share" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>up to {high:,}: {share:.1%}</title></circle>'
        for x, y, share, high in dots
    ]
    at = _place(found.quantile(0.5), bars, step)
    side = "end" if at > (LEFT + RIGHT) / 2 else "start"
    parts.append(f'<line class="median" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
    shift = -6 if side == "end" else 6
    parts.append(_text(at + shift, TOP - 4, f"median {found.quantile(0.5):,}", "middle small", side))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 16, "length in characters (each bar a doubling)", anchor="middle"))
    middle = (TOP + BOTTOM) / 2
    parts.append(
        f'<text class="small" text-anchor="middle" transform="translate(20 {middle:.0f}) rotate(-90)">documents</text>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img">\n<title>{_clean(f"Lengths of the documents of {title}")}</title>\n'
        f"<desc>{_clean(summary)}</desc>\n<style>{STYLE}</style>\n"
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _place(length: int, bars: list[tuple[int, int, int]], step: float) -> float:
    """Where a length is on the axis: a doubling is a step, and within it the scale is even."""
    n = max(length, 1).bit_length() - bars[0][0].bit_length()
    low = bars[n][0]
    return LEFT + (n + (max(length, 1) - low) / low) * step


def _round_up(value: int) -> int:
    """The next round number that is a multiple of 4, so that the four grid lines are at whole numbers."""
    size = 1
    while True:
        for factor in (4, 8, 12, 16, 20, 24, 32):
            if factor * size >= value:
                return factor * size
        size *= 10


def _short(value: int) -> str:
    for unit, name in ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if value >= unit:
            return f"{value // unit}{name}"
    return str(value)


def _clean(text: str) -> str:
    """Text that XML can hold."""
    return escape("".join(c if c.isprintable() else "�" for c in text))


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{side}>{_clean(text)}</text>'
