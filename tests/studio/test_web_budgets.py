"""The studio's budgets, measured: run by `make prove` on a quiet machine, printed with -s."""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cllm.studio.lattice_colours import SCHEMES, Colouring
from cllm.studio.lattice_tiles import Tile, render

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness, serving = sys.modules["browser"], sys.modules["serving"]
pytestmark = pytest.mark.prove

TILE_SECONDS = 0.5
PAINT_MS = 1000
FRAMES_PER_SECOND = 30
TABS = 7
START_MS = 3000
SERVER_MIB = 120


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tile_near_the_last_number(scheme: str) -> None:
    asked = Tile("ulam", 0, 1950, 1900, colouring=Colouring(scheme))
    times = []
    for _ in range(7):
        began = time.process_time()  # one thread: the neighbours of the machine do not count
        render(asked)
        times.append(time.process_time() - began)
    serving.figure(f"tile near 10¹², coloured by {scheme}", 1000 * min(times), "ms", 1000 * TILE_SECONDS)
    assert min(times) < TILE_SECONDS


def test_first_paint(browser: Any, studio: Any) -> None:
    found = []
    for _ in range(5):
        with harness.signed_in(browser, studio) as (page, _):
            page.goto(studio.at("lattice"))
            expect(page.locator("[data-control='lattice.curve']")).to_be_visible()
            found.append(page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    serving.figure("first paint of the Lattice screen", min(found), "ms", PAINT_MS)
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
        serving.figure("panning four times out", best, "frames/s", FRAMES_PER_SECOND)
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
        serving.figure(f"a tile near 10¹² with {TABS} tabs open", min(times), "ms", 1000 * TILE_SECONDS)
        assert min(times) < 1000 * TILE_SECONDS


def test_the_bundle() -> None:
    """What the browser loads in all, compressed; test_web.py holds it to its limit in every run."""
    files = [path for path in harness.build_pages().rglob("*") if path.is_file()]
    size = sum(len(gzip.compress(path.read_bytes(), 6)) for path in files)
    serving.figure("bundle, all screens, gzip", size / 1000, "kB", 150)
    assert size < 150_000


def test_the_start(tmp_path: Path) -> None:
    """From the command to the address, and to the first answer, with the files in the cache."""
    printed, answered = [], []
    for n in range(4):
        began = time.perf_counter()
        with serving.started(tmp_path / f"w{n}") as running:
            printed.append(time.perf_counter() - began)
            assert running.client.get("/").status == 200
            answered.append(time.perf_counter() - began)
    serving.figure("`cllm studio` to its address", 1000 * min(printed), "ms")
    serving.figure("`cllm studio` to the first answer", 1000 * min(answered), "ms", START_MS)
    assert min(answered) < START_MS / 1000


def test_memory_of_the_server(studio: Any) -> None:
    """Resident memory of the server itself, which imports no torch."""
    status = Path(f"/proc/{studio.process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    serving.figure("memory of the server", resident, "MiB", SERVER_MIB)
    assert resident < SERVER_MIB
