"""The Generate screen in Chromium, with a real model: every control does what it says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cllm

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness, serving = sys.modules["browser"], sys.modules["serving"]
tested: set[str] = set()
SOURCE = harness.ROOT / "web" / "src" / "screens" / "generate"
PROMPT = "The gull"


def covers(*names: str) -> Callable[[Any], Any]:
    """These controls are used by the test."""
    tested.update(names)
    return lambda test: test


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='{name}']")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with two runs of one checkpoint each."""
    workspace = tmp_path_factory.mktemp("generate") / "workspace"
    workspace.mkdir()
    serving.add_run(workspace, "runs/old")
    serving.add_trained(workspace, "runs/small")
    with harness.start_studio(workspace) as running:
        yield running


@pytest.fixture(scope="module")
def browser(studio: Any) -> Iterator[Any]:
    with harness.open_browser() as opened:
        yield opened


def show(page: Any, studio: Any, **params: Any) -> None:
    page.goto(studio.at("generate", **({"run": "runs/small"} | params)))
    expect(control(page, "generate.write")).to_be_visible()
    expect(page.locator(".next-list li").first).to_be_visible(timeout=60_000)  # the model is loaded


def slide(page: Any, name: str, value: float) -> None:
    """A range input at a value, as a mouse would put it there."""
    control(page, name).evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def fill(page: Any, name: str, text: str) -> None:
    control(page, name).fill(text)
    control(page, name).press("Enter")


def write(page: Any, prompt: str = PROMPT, count: int = 8, seed: int = 1) -> None:
    control(page, "generate.prompt").fill(prompt)
    fill(page, "generate.max-tokens", str(count))
    fill(page, "generate.seed", str(seed))
    control(page, "generate.write").click()
    done(page)


def done(page: Any) -> None:
    expect(control(page, "generate.stop")).to_have_count(0, timeout=60_000)
    expect(control(page, "generate.continue")).to_be_visible()


def texts(page: Any, column: int = 0) -> list[str]:
    found = page.locator(".written").nth(column).locator("[data-place]")
    return found.evaluate_all("all => all.map(e => e.textContent)")  # type: ignore[no-any-return]


def expected(studio: Any, run: str = "runs/small", prompt: str = PROMPT, **options: Any) -> str:
    return cllm.load(studio.workspace / run).generate(prompt, **options)


@covers(
    "generate.prompt", "generate.write", "generate.max-tokens", "generate.seed", "generate.continue", "generate.token"
)
def test_it_writes_what_the_command_writes(page: Any, studio: Any) -> None:
    show(page, studio)
    write(page)
    assert "".join(texts(page)) == expected(studio, max_tokens=8, seed=1)
    expect(page.locator(".prompt-text")).to_have_text(PROMPT)
    expect(page.locator(".column-facts")).to_contain_text("8 tokens")
    control(page, "generate.continue").click()
    expect(page.locator(".column-facts")).to_contain_text("16 tokens")
    done(page)
    assert "".join(texts(page)) == expected(studio, max_tokens=16, seed=1)
    control(page, "generate.prompt").fill("A ")
    control(page, "generate.prompt").press("Control+Enter")
    expect(page.locator(".prompt-text")).to_have_text("A ")
    expect(page.locator(".column-facts")).to_contain_text("8 tokens")
    done(page)
    assert "".join(texts(page)) == expected(studio, prompt="A ", max_tokens=8, seed=1)
    # the tint is the surprise
    pieces = list(cllm.load(studio.workspace / "runs/small").stream("A ", max_tokens=8, seed=1))
    import math

    for token, piece in zip(page.locator("[data-place]").all(), pieces, strict=True):
        level = min(8, int(piece.surprise * math.log(2) / 0.75))
        assert f"t{level}" in token.get_attribute("class").split()


@covers("generate.alternative", "generate.alternatives-close", "generate.branch", "generate.prune")
def test_branches(page: Any, studio: Any) -> None:
    show(page, studio)
    write(page)
    first = texts(page)
    page.locator("[data-place='3']").hover()
    card = page.locator(".alternatives")
    expect(card).to_contain_text("Click to branch off")
    page.locator("[data-place='3']").click()
    expect(card).to_contain_text("Choose one to branch off")
    control(page, "generate.alternatives-close").click()
    expect(page.locator(".alternatives.pinned")).to_have_count(0)
    page.locator("[data-place='3']").click()
    other = page.locator("[data-control='generate.alternative']:not([disabled])").first
    chosen = other.locator(".alternative-text").inner_text().replace("␣", " ").replace("↵", "\n")
    other.click()
    expect(control(page, "generate.branch")).to_have_count(2)
    done(page)
    second = texts(page)
    assert second[:3] == first[:3]
    assert second[3] == chosen != first[3]
    assert len(second) == 12  # the prefix, the chosen one, and eight more
    expect(page.locator("[data-place='3']")).to_have_class(re.compile("forced"))
    control(page, "generate.branch").first.click()
    assert texts(page) == first
    # the same alternative again is the same branch
    page.locator("[data-place='3']").click()
    page.locator("[data-control='generate.alternative']:not([disabled])").first.click()
    expect(control(page, "generate.branch")).to_have_count(2)
    assert texts(page) == second
    control(page, "generate.prune").click()
    expect(control(page, "generate.branch")).to_have_count(0)
    assert texts(page) == first


def test_the_keyboard_is_enough(page: Any, studio: Any) -> None:
    show(page, studio)
    write(page)
    page.locator("[data-place='0']").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.place") == "4"
    page.keyboard.press("Enter")
    expect(page.locator(".alternatives.pinned")).to_be_visible()
    assert page.evaluate("document.activeElement.dataset.control") == "generate.alternative"
    page.keyboard.press("Escape")
    expect(page.locator(".alternatives.pinned")).to_have_count(0)
    assert page.evaluate("document.activeElement.dataset.place") == "4"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(control(page, "generate.branch")).to_have_count(2)
    done(page)
    seed = control(page, "generate.seed").input_value()
    page.locator("main").focus()
    page.keyboard.press("r")
    expect(control(page, "generate.seed")).not_to_have_value(seed)
    count = len(texts(page))
    page.keyboard.press("c")
    expect(page.locator(".column-facts")).not_to_contain_text(f"{count} tokens")


@covers("generate.stop", "generate.past-context")
def test_stop(page: Any, studio: Any) -> None:
    show(page, studio)
    control(page, "generate.past-context").get_by_role("radio", name="slide").click()
    control(page, "generate.prompt").fill(PROMPT)
    slide(page, "generate.temperature", 0)  # the likeliest one again and again: no end token comes
    fill(page, "generate.max-tokens", "100000")
    control(page, "generate.write").click()
    expect(page.locator("[data-place='40']")).to_be_attached(timeout=60_000)  # beyond the context of 32
    control(page, "generate.stop").click()
    done(page)
    count = len(texts(page))
    page.wait_for_timeout(300)
    assert len(texts(page)) == count
    # without sliding it ends where the context does
    control(page, "generate.past-context").get_by_role("radio", name="stop").click()
    control(page, "generate.write").click()
    expect(page.get_by_text("The model's context is full")).to_be_visible(timeout=30_000)


SLIDERS = {
    "generate.temperature": ("temperature", 1.5), "generate.top-k": ("top_k", 3), "generate.top-p": ("top_p", 0.5),
    "generate.min-p": ("min_p", 0.2), "generate.repetition": ("repetition_penalty", 1.5),
}  # fmt: skip


@covers("generate.reset", "generate.new-seed", "generate.stops", *SLIDERS)
def test_sampling_and_the_distribution_it_leaves(page: Any, studio: Any) -> None:
    show(page, studio)
    control(page, "generate.prompt").fill(PROMPT)
    for name, (option, value) in SLIDERS.items():

        def fits(r: Any, option: str = option, value: float = value) -> bool:
            return r.url.endswith("/api/generate/next") and r.request.post_data_json["options"][option] == value

        with page.expect_response(fits) as info:
            slide(page, name, value)
        found = info.value.json()
        if found["kept"] < found["vocab"]:
            expect(page.locator(".next-facts b").first).to_have_text(str(found["kept"]))
        assert sum(one[3] for one in found["top"]) <= 1 + 1e-9
    assert found["kept"] <= 3
    options = {"temperature": 1.5, "top_k": 3, "top_p": 0.5, "min_p": 0.2, "repetition_penalty": 1.5}
    write(page, count=6, seed=5)
    assert "".join(texts(page)) == expected(studio, max_tokens=6, seed=5, **options)
    control(page, "generate.reset").click()
    expect(control(page, "generate.temperature")).to_have_value("0.8")
    expect(control(page, "generate.reset")).to_have_count(0)
    before = control(page, "generate.seed").input_value()
    control(page, "generate.new-seed").click()
    expect(control(page, "generate.seed")).not_to_have_value(before)
    whole = expected(studio, max_tokens=8, seed=1)
    fill(page, "generate.stops", whole[4].replace("\n", "\\n"))
    write(page)
    assert "".join(texts(page)) == expected(studio, max_tokens=8, seed=1, stop=[whole[4]])


@covers("generate.two", "generate.run", "generate.checkpoint", "generate.run-b", "generate.checkpoint-b")
@covers("generate.branch-b", "generate.prune-b")
def test_two_side_by_side(page: Any, studio: Any) -> None:
    show(page, studio)
    control(page, "generate.two").check(force=True)
    expect(control(page, "generate.run-b")).to_be_visible()
    control(page, "generate.run-b").select_option("runs/old")
    control(page, "generate.checkpoint-b").select_option("step-00000003")
    expect(page).to_have_url(re.compile(r"run2=runs%2Fold&checkpoint2=step-00000003"))
    write(page, prompt="no", count=5)
    assert "".join(texts(page, 0)) == expected(studio, prompt="no", max_tokens=5, seed=1)
    assert "".join(texts(page, 1)) == expected(studio, "runs/old", prompt="no", max_tokens=5, seed=1)
    second = page.locator(".column").nth(1)
    second.locator("[data-place='1']").click()
    second.locator("[data-control='generate.alternative']:not([disabled])").first.click()
    expect(control(page, "generate.branch-b")).to_have_count(2)
    expect(control(page, "generate.branch")).to_have_count(0)
    done(page)
    control(page, "generate.branch-b").first.click()
    assert "".join(texts(page, 1)) == expected(studio, "runs/old", prompt="no", max_tokens=5, seed=1)
    control(page, "generate.prune-b").click()
    expect(control(page, "generate.branch-b")).to_have_count(0)
    control(page, "generate.run").select_option("runs/old")  # another model's text is not this one's
    assert texts(page, 0) == []
    control(page, "generate.checkpoint").select_option("step-00000003")
    write(page, prompt="no", count=5)
    assert texts(page, 0) == texts(page, 1)
    control(page, "generate.two").uncheck(force=True)
    expect(control(page, "generate.run-b")).to_have_count(0)


@covers("generate.section-copy", "generate.section-next", "generate.section-sampling")
@covers("generate.copy-command", "generate.copy-python")
def test_the_same_elsewhere(browser: Any, studio: Any) -> None:
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    with harness.signed_in(browser, studio, **options) as (page, _):
        show(page, studio)
        control(page, "generate.prompt").fill('He said "no"')
        control(page, "generate.section-copy").click()
        expect(page.locator(".code").first).to_contain_text("cllm generate runs/small")
        expect(page.locator(".code").first).to_contain_text("He said")
        control(page, "generate.copy-command").click()
        expect(page.locator(".toast")).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith("cllm generate runs/small '--prompt=He said")
        control(page, "generate.copy-python").click()
        serving.until(lambda: "import cllm" in page.evaluate("navigator.clipboard.readText()"))
        for section, inside in (("sampling", "generate.temperature"), ("next", None)):
            control(page, f"generate.section-{section}").click()
            hidden = control(page, inside) if inside else page.locator(".next-list")
            expect(hidden).not_to_be_visible()
            control(page, f"generate.section-{section}").click()
            expect(hidden).to_be_visible()


@covers("generate.train")
def test_without_a_model_it_says_the_next_step(browser: Any, tmp_path: Path) -> None:
    with harness.start_studio(tmp_path / "empty") as studio, harness.signed_in(browser, studio) as (page, _):
        page.goto(studio.at("generate"))
        control(page, "generate.train").click()
        expect(page.locator("h1")).to_have_text("New run")


@covers("generate.retry")
def test_checkpoints_that_cannot_be_read_are_tried_again(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio) as (page, watch):
        watch.allow("500")
        path = "**/api/generate/checkpoints"
        page.route(path, lambda route: route.fulfill(status=500, body='{"error": "the disk is gone"}'))
        page.goto(studio.at("generate"))
        expect(page.get_by_text("the disk is gone")).to_be_visible()
        page.unroute(path)
        control(page, "generate.retry").click()
        expect(control(page, "generate.write")).to_be_visible()


def test_a_failure_in_the_middle_is_said(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("400")
    show(page, studio)
    control(page, "generate.prompt").fill("x" * 40)  # more than the context of 32 holds
    control(page, "generate.write").click()
    expect(page.get_by_role("alert").first).to_contain_text("context of 32")


def test_every_control_has_a_test(page: Any, studio: Any) -> None:
    """Those that can be seen in each state of the screen, and every name in its source."""
    show(page, studio)
    control(page, "generate.section-copy").click()
    slide(page, "generate.temperature", 1)
    seen = harness.controls(page)
    write(page)
    page.locator("[data-place='3']").click()
    seen |= harness.controls(page)
    control(page, "generate.two").check(force=True)
    seen |= harness.controls(page)
    source = "".join(path.read_text() for path in SOURCE.glob("*.tsx"))
    for name, suffix in re.findall(r"""(?:data-)?control=["{`]+(generate\.[\w-]+)(\$\{suffix\})?""", source):
        seen |= {name, f"{name}-b"} if suffix else {name}
    seen = {name for name in seen if name.startswith("generate.")}
    assert seen == tested


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_narrow_pages_hold_everything(browser: Any, studio: Any, scheme: str) -> None:
    with harness.signed_in(browser, studio, viewport={"width": 390, "height": 844}, color_scheme=scheme) as (page, _):
        show(page, studio)
        write(page)
        wide = page.evaluate(
            "[...document.querySelectorAll('.generate *')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"
        )
        assert wide == []
