"""Accessibility of every screen, dark and light, by axe-core: contrast, names, roles, headings, all its rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness, serving = sys.modules["browser"], sys.modules["serving"]
AXE = harness.ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with a text, a run with a checkpoint, two logs, a measurement and a note."""
    workspace = tmp_path_factory.mktemp("access") / "workspace"
    workspace.mkdir()
    serving.add_trained(workspace, "runs/small")
    serving.add_log(workspace, "runs/alpha", 400)
    serving.add_log(workspace, "runs/beta", 200)
    (workspace / "ideas.md").write_text("# Ideas\n\n- *more* steps\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    (workspace / "benchmarks").mkdir()
    for table in ("numbers", "train-step-small-b16-t128"):
        (workspace / f"benchmarks/{table}.json").write_bytes((harness.ROOT / f"benchmarks/{table}.json").read_bytes())
    with harness.start_studio(workspace) as running:
        yield running


@pytest.fixture(scope="module")
def browser(studio: Any) -> Iterator[Any]:
    with harness.open_browser() as opened:
        yield opened


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='{name}']")


def seen(selector: str) -> Callable[[Any], None]:
    """Waits until that can be seen."""
    return lambda page: expect(page.locator(selector).first).to_be_visible(timeout=60_000)


def drawn(page: Any) -> None:
    expect(page.locator(".lattice")).to_have_attribute("aria-busy", "false")


def written(page: Any) -> None:
    control(page, "generate.prompt").fill("The gull")
    control(page, "generate.max-tokens").fill("6")
    control(page, "generate.seed").fill("1")
    control(page, "generate.write").click()
    expect(control(page, "generate.continue")).to_be_visible(timeout=60_000)
    page.locator("[data-place='0']").click()
    seen(".alternatives.pinned")(page)


def palette(page: Any) -> None:
    drawn(page)  # the page hears keys
    page.keyboard.press("Control+k")
    seen(".palette [role=option]")(page)


def keys(page: Any) -> None:
    drawn(page)
    page.locator("main").focus()
    page.keyboard.press("?")
    seen("dialog[open] .shortcuts")(page)


def message(page: Any) -> None:
    control(page, "lattice.link").click()
    seen(".toast")(page)


STATES: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
    "lattice": ({"n": 12, "null": "all", "line": "1 1 41"}, seen(".line-facts")),
    "lattice expression": ({"colour": "expression"}, drawn),
    "lattice formula": ({"curve": "formula"}, drawn),
    "lattice space": ({"curve": "space", "space": "E8"}, drawn),
    "lattice palette": ({}, palette),
    "lattice keys": ({}, keys),
    "lattice message": ({}, message),
    "calculate": ({"rows": json.dumps(["a = 2^89 - 1", "1/3", "1/0", "sqrt(2)"])}, seen(".sheet-problem")),
    "calculate functions": ({}, lambda page: (control(page, "calculate.functions").click(), seen("dialog li")(page))),
    "train": ({"run": "runs/alpha", "with": "runs/beta"}, seen(".curves-frame canvas")),
    "train notes": ({"run": "runs/small"}, lambda page: control(page, "train.tab-notes").click()),
    "train new": ({"new": 1}, seen(".text-row")),
    "generate": ({"run": "runs/small"}, written),
    "inside": ({"run": "runs/small"}, seen(".inside")),
    "bench": ({}, seen(".bench h1")),
    "bench studies": ({"part": "studies"}, seen(".bench h2")),
    "bench note": ({"part": "notes", "note": "ideas.md"}, seen(".bench h2")),
    "inside attention": ({"run": "runs/small", "view": "attention"}, seen(".inside canvas")),
    "inside tensors": ({"run": "runs/small", "view": "tensors"}, seen(".inside table")),
    "inside lens": ({"run": "runs/small", "view": "lens"}, seen(".inside [role=application]")),
    "inside certificate": ({"run": "runs/small", "view": "certificate"}, seen(".inside h2, .inside h3")),
    "nowhere": ({}, seen(".empty")),
}


def test_axe_finds_nothing(browser: Any, studio: Any) -> None:
    """Every state of every screen: all rules in dark, the contrasts again in light."""
    rules = AXE.read_text()
    found: list[str] = []
    options = {"reduced_motion": "reduce", "permissions": ["clipboard-read", "clipboard-write"]}
    with harness.signed_in(browser, studio, **options) as (page, watch):
        watch.allow("status of 4")

        def look(where: str, only: dict[str, Any]) -> None:
            answer = page.evaluate("o => axe.run(document, {runOnly: o, resultTypes: ['violations']})", only)
            assert answer["passes"], where
            for violation in answer["violations"]:
                nodes = [node["html"][:160] + " — " + node["failureSummary"][:300] for node in violation["nodes"][:4]]
                found.append(f"{where}: {violation['id']}: {violation['help']}\n    " + "\n    ".join(nodes))

        for name, (params, reach) in STATES.items():
            page.goto("about:blank")
            page.goto(studio.at(name.partition(" ")[0], **params))
            reach(page)
            page.evaluate(f"() => {{ {rules} }}")
            look(f"{name}, dark", {"type": "tag", "values": RULES})
            page.emulate_media(color_scheme="light")
            expect(page.locator("html")).to_have_attribute("data-theme", "light")
            look(f"{name}, light", {"type": "rule", "values": ["color-contrast"]})
            page.emulate_media(color_scheme="dark")
    assert not found, "\n" + "\n".join(found)
