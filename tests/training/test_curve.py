"""The picture shows the numbers of the log, at their places, and is a self-contained, well-formed SVG."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cllm.errors import RunError, UsageError
from cllm.training.curve import Axis, draw, figure, half_life_for, smooth, write_curve
from cllm.training.events import Event, EventLog

SVG = "{http://www.w3.org/2000/svg}"


def step(n: int, loss: float | str, **more: object) -> Event:
    return {"event": "step", "step": n, "time": 0.0, "loss": loss, "lr": 1e-3, "tokens": 64 * n, **more}


def evaluation(n: int, loss: float) -> Event:
    return {"event": "eval", "step": n, "time": 0.0, "loss": loss}


def parts(svg: str, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    assert root.tag == SVG + "svg"
    return [e for e in root.iter() if e.get("class") == kind]


def points(path: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in (pair.split() for pair in path.get("d", "").lstrip("M").split("L"))]


def drawn(svg: str, kind: str) -> list[tuple[float, float]]:
    """The points of the one drawn path of a kind; the legend's sample comes last and is no list of points."""
    return points(next(e for e in parts(svg, kind) if "h" not in e.get("d", "")))


def labels(svg: str) -> dict[str, tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    return {e.text or "": (float(e.get("x", "nan")), float(e.get("y", "nan"))) for e in root.iter(SVG + "text")}


def test_every_point_is_where_the_axes_say() -> None:
    losses = [50.0, 40.0, 35.0, 45.0, 30.0]
    svg = draw([*(step(n, v) for n, v in enumerate(losses, 1)), evaluation(2, 40.0), evaluation(4, 30.0)], title="t")
    where = labels(svg)
    low, high = where["30"][1], where["50"][1]  # two labels give each scale; text sits 4.5 below its line
    left, right = where["0"][0], where["5"][0]
    assert left == 72 and right == 900

    def height(loss: float) -> float:
        return low - 4.5 + (loss - 30) / 20 * (high - low)

    raw = drawn(svg, "raw")
    assert len(raw) == 5
    for (a, b), (n, v) in zip(raw, enumerate(losses, 1), strict=True):
        assert a == pytest.approx(left + n / 5 * (right - left), abs=0.06)
        assert b == pytest.approx(height(v), abs=0.2)
    dots = [(float(e.get("cx", "")), float(e.get("cy", ""))) for e in parts(svg, "dot")][:2]
    assert dots[0] == pytest.approx(raw[1], abs=0.06), "validation 40 at step 2 lies on training 40 at step 2"
    (ring,) = parts(svg, "best")
    assert (float(ring.get("cx", "")), float(ring.get("cy", ""))) == pytest.approx(dots[1], abs=0.06)
    assert "30.000" in where and any("validation 30.000" in text for text in where)
    for (_, b), v in zip(drawn(svg, "ema"), smooth(losses, half_life_for(5)), strict=True):
        assert b == pytest.approx(height(v), abs=0.2)


def test_the_average_by_hand() -> None:
    assert smooth([4.0, 4.0, 4.0], 2.0) == pytest.approx([4.0] * 3)
    # half-lives 1 and 1.1 points at points 0 and 1
    first, second = 0.5, 0.5 ** (1 / 1.1)
    expected = (second * first * 8 + (1 - second) * 2) / (second * first + 1 - second)
    assert smooth([8.0, 2.0], 10.0) == pytest.approx([8.0, expected])
    assert smooth([math.nan, 3.0, math.inf, 3.0], 1.0)[1:] == pytest.approx([3.0, 3.0, 3.0])
    assert math.isnan(smooth([math.nan], 1.0)[0])
    # an impulse fades by half within a half-life
    late = smooth([0.0] * 500 + [1.0] + [0.0] * 20, 10.0)
    assert late[510] / late[500] == pytest.approx(0.5, rel=1e-9)


def test_a_loss_that_is_not_finite_breaks_the_line_and_the_alert_is_shown() -> None:
    events = [step(n, "NaN" if n == 3 else 2.0 + n) for n in range(1, 7)]
    svg = draw([*events, {"event": "alert", "step": 3, "kind": "non-finite <b>"}])
    lines = [points(e) for e in parts(svg, "raw") if "h" not in e.get("d", "")]
    assert [len(line) for line in lines] == [2, 3] and "nan" not in svg.lower().replace("nan-serif", "")
    assert "non-finite <b>" in labels(svg) and len(parts(svg, "alert")) == 1


def test_crowded_points_keep_their_extremes() -> None:
    losses = [3.0 + 0.001 * (n % 7) for n in range(20_000)]
    losses[9_999], losses[15_000] = 3.5, 2.5
    events = [step(n, v) for n, v in enumerate(losses, 1)]
    heights = [b for _, b in drawn(draw(events), "raw")]
    assert len(heights) < 4 * 960 + 4
    where = labels(draw([*events, evaluation(1, 4.0)]))
    assert max(heights) - min(heights) > 0.9 * (484 - 104) and where  # both spikes span the picture
    assert len(draw(events)) < 200_000


def test_log_scales_space_factors_evenly() -> None:
    svg = draw([step(n, v) for n, v in ((1, 8.0), (10, 4.0), (100, 2.0), (1000, 1.0))], y="log", x_scale="log")
    places = drawn(svg, "raw")
    for axis in (0, 1):
        gaps = [b[axis] - a[axis] for a, b in itertools.pairwise(places)]
        assert gaps == pytest.approx([gaps[0]] * 3, abs=0.11)
    assert "loss, nats per token (log scale)" in "".join(e.text or "" for e in ElementTree.fromstring(svg).iter())
    assert {"1", "10", "100", "1,000"} <= labels(svg).keys()


def test_tokens_as_the_axis() -> None:
    svg = draw([step(1, 3.0, tokens=100), step(2, 2.0, tokens=400), evaluation(2, 2.0)], x="tokens")
    assert drawn(svg, "raw")[0][0] == pytest.approx(72 + (900 - 72) / 4, abs=0.06)
    assert float(parts(svg, "dot")[0].get("cx", "")) == 900.0 and "tokens seen" in labels(svg)


def test_repeated_steps_show_the_run_as_it_stands() -> None:
    old = [step(n, 9.0) for n in range(1, 11)]
    new = [{"event": "resume", "step": 5}, *(step(n, 1.0) for n in range(6, 9))]
    assert len(drawn(draw([*old, *new]), "raw")) == 8


def test_light_dark_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    svg = draw([step(1, 1.0), step(2, 2.0)], title="<script>&'\"")
    assert "prefers-color-scheme:dark" in svg
    outside = svg.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|href|<script|url\((?!#in\))|@import", outside)
    assert "<script>&'\"" in labels(svg)
    assert ElementTree.fromstring(svg).find(SVG + "desc") is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["step", "eval", "alert", "resume", "sample"]),
            st.integers(0, 10**12),
            st.floats() | st.sampled_from(["NaN", "Infinity", "x", None, True, 0, -1.5]),
        ),
        max_size=12,
    ),
    st.sampled_from(["step", "tokens"]),
    st.sampled_from(["auto", "linear", "log"]),
    st.sampled_from(["auto", "linear", "log"]),
)
@settings(deadline=None, max_examples=300)
def test_any_log_gives_a_well_formed_picture(found: list, x: str, y: str, x_scale: str) -> None:
    events = [
        {"event": kind, "step": n, "loss": value, "lr": value, "tokens": value, "kind": value}
        for kind, n, value in found
    ]
    svg = draw(events, x=x, y=y, x_scale=x_scale)  # type: ignore[arg-type]
    for element in ElementTree.fromstring(svg).iter():
        for value in (element.get("d", ""), element.get("cx", "0"), element.get("x", "0"), element.get("y", "0")):
            assert not re.search("nan|inf|e[+-]", value)


def test_axis_ticks_are_round_and_in_reach() -> None:
    assert Axis(0, 1000, 0, 1).ticks(8) == [0, 200, 400, 600, 800, 1000]
    assert Axis(0.9, 5.3, 0, 1).ticks() == [1, 2, 3, 4, 5]
    assert Axis(1, 1e6, 0, 1, True).ticks() == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    assert Axis(0.8, 11, 0, 1, True).ticks() == [1, 2, 5, 10]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (1200, "1,200"), (40000, "40,000"), (3e6, "3 M"), (40.96e6, "40.96 M"), (2e9, "2 G"),
     (6e-4, "6·10⁻⁴"), (1e-5, "10⁻⁵"), (-2.5, "-2.5")],
)  # fmt: skip
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_the_file_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "my-run"
    run.mkdir()
    with EventLog(run / "events.jsonl") as log:
        log.emit("start", 0)
        for n in range(1, 5):
            log.emit("step", n, loss=5.0 / n, lr=1e-3, tokens=n)
    path = write_curve(run)
    assert path == run / "loss.svg" and sorted(p.name for p in run.iterdir()) == ["events.jsonl", "loss.svg"]
    assert "my-run" in labels(path.read_text(encoding="utf-8"))
    assert write_curve(run) == path
    with pytest.raises(RunError, match="no log to read"):
        write_curve(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_curve(run)


def test_nothing_logged_and_wrong_arguments() -> None:
    assert "no step has been logged yet" in labels(draw([]))
    with pytest.raises(UsageError, match="expected x step or tokens"):
        draw([], x="epochs")  # type: ignore[arg-type]
