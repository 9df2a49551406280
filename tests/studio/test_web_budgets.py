"""The studio's budgets, measured: run by `make prove` on a quiet machine, printed with -s."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from cllm.studio.lattice_colours import SCHEMES, Colouring
from cllm.studio.lattice_tiles import Tile, render

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness = sys.modules["browser"]
pytestmark = pytest.mark.prove

TILE_SECONDS = 0.5
PAINT_MS = 1000
FRAMES_PER_SECOND = 30
TABS = 7


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tile_near_the_last_number(scheme: str) -> None:
    asked = Tile("ulam", 0, 1950, 1900, colouring=Colouring(scheme))
    times = []
    for _ in range(7):
        began = time.process_time()  # one thread: the neighbours of the machine do not count
        render(asked)
        times.append(time.process_time() - began)
    print(f"tile near 10^12, {scheme}: {1000 * min(times):.0f} ms")
    assert min(times) < TILE_SECONDS


def test_first_paint(browser: Any, studio: Any) -> None:
    found = []
    for _ in range(5):
        with harness.signed_in(browser, studio) as (page, _):
            page.goto(studio.at("lattice"))
            expect(page.locator("[data-control='lattice.curve']")).to_be_visible()
            found.append(page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    print(f"first paint: {min(found):.0f} ms")
    assert min(found) < PAINT_MS


def test_panning_four_levels_out(browser: Any, studio: Any) -> None:
    """Frames a second while the picture moves by 12 pixels a frame, tiles being asked for and given up meanwhile."""
    with harness.signed_in(browser, studio) as (page, _):
        page.goto(studio.at("lattice", w=730 * 4))
        canvas = page.locator("[data-control='lattice.canvas']")
        expect(canvas).to_have_attribute("data-waiting", "0")
        best = 0.0
        for _ in range(3):
            best = max(
                best,
                canvas.evaluate(
                    """c => new Promise(done => {
                         let k = 0; const began = performance.now();
                         const step = () => {
                           c.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
                           if (++k < 90) requestAnimationFrame(step);
                           else done(1000 * k / (performance.now() - began)); };
                         requestAnimationFrame(step); })"""
                ),
            )
        print(f"panning at 4 numbers a pixel's side: {best:.0f} frames a second")
        assert best >= FRAMES_PER_SECOND


def test_seven_tabs(browser: Any, studio: Any) -> None:
    """With seven tabs open, each with its live connection, a tile still comes in time."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        pages = [stack.enter_context(harness.signed_in(browser, studio))[0] for _ in range(TABS)]
        for page in pages:
            page.goto(studio.at("lattice"))
            expect(page.get_by_role("status").first).to_contain_text("Connected")
        times = [
            pages[-1].evaluate(
                """async k => { const began = performance.now();
                     const r = await fetch(`/api/lattice/tile?curve=ulam&level=0&i=${1950 + k}&j=1900`);
                     await r.arrayBuffer(); return performance.now() - began; }""",
                k,
            )
            for k in range(6)
        ]
        print(f"a tile with {TABS} tabs open: {min(times):.0f} ms")
        assert min(times) < 1000 * TILE_SECONDS
