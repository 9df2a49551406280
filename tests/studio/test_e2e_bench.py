"""Bench & research in Chromium: real measurements, a real study, notes; every control does what it says."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness, serving = sys.modules["browser"], sys.modules["serving"]
tested: set[str] = set()
SOURCE = harness.ROOT / "web" / "src" / "screens" / "bench"
STUDIES = harness.ROOT / "docs" / "studies"
LONG = 120_000  # ms: a real training or measurement on a busy machine
NOTE = (
    """\
# Ideas

See [the second note](sub/second.md#the-end), [the web](https://example.org/x), [down](#later),
[bad](javascript:alert(1)).

<script>document.title = "stolen"</script>

![a picture](picture.svg) ![another host's](https://evil.example/x.png)

| a | b |
|---|--:|
| 1 | 2 |

- [x] done

"""
    + "A line of text.\n\n" * 60
    + "## Later\n\nThe last words.\n"
)
STUDY = """\
title = "Dropout on the sea"
seeds = [1, 2]
[run]
preset = "nano"
train.steps = {steps}
train.batch = 2
train.sequence = 16
train.eval_every = 20
train.sample_every = 0
data.tokenizer = "char"
data.path = ["sea.txt"]
[run.model]
layers = 1
width = 16
heads = 2
ff = 16
context = 16
[grid]
"model.dropout" = [0.0, 0.1]
"""


def covers(*names: str) -> Callable[[Any], Any]:
    """These controls are used by the test."""
    tested.update(f"bench.{name}" for name in names)
    return lambda test: test


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='bench.{name}']")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with a text, measurements of two machines and three commits, two studies, notes."""
    workspace = tmp_path_factory.mktemp("bench") / "workspace"
    workspace.mkdir()
    serving.add_text(workspace)
    add = serving.add_measurement
    add(workspace, "benchmarks/history/a", date="2026-01-01", commit="aaaaaaaaaaaa")
    add(workspace, "benchmarks/history/b", date="2026-01-02", commit="bbbbbbbbbbbb+")
    other = serving.MACHINE | {"cpu": "Another"}
    add(workspace, "benchmarks", date="2026-01-03", commit="cccccccccccc", machine=other)
    for name in ("positions", "symmetry-bias"):
        shutil.copytree(STUDIES / name, workspace / "docs" / name)
        shutil.copy(STUDIES / f"{name}.toml", workspace / "docs")
    (workspace / "sea.toml").write_text(STUDY.format(steps=120))
    (workspace / "ocean.toml").write_text(STUDY.format(steps=100_000).replace("the sea", "the ocean"))
    (workspace / "ideas.md").write_text(NOTE)
    (workspace / "sub").mkdir()
    (workspace / "sub" / "second.md").write_text("# Second\n\n" + "A line.\n\n" * 80 + "## The end\n\nof it.\n")
    (workspace / "picture.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20"><rect width="60" height="20"/></svg>'
    )
    with harness.start_studio(workspace) as running:
        yield running
    serving.end_jobs(workspace)


@pytest.fixture(scope="module")
def browser(studio: Any) -> Iterator[Any]:
    with harness.open_browser() as opened:
        yield opened


def show(page: Any, studio: Any, part: str = "measure", **params: Any) -> None:
    page.goto(studio.at("bench", part=part, **params))
    expect(control(page, "part").or_(control(page, "back")).first).to_be_visible()


# ------------------------------------------------------------------------------------------------------- measurements


@covers("command", "option", "defaults", "start", "stop", "log", "open-result", "table")
def test_a_measurement_is_stopped_and_made(page: Any, studio: Any) -> None:
    show(page, studio)
    control(page, "command").filter(has_text="prepare").click()
    expect(page.locator(".page h1")).to_have_text("prepare")
    expect(page).to_have_url(re.compile("bench=prepare"))
    expect(page.locator(".around")).to_contain_text("What else runs")
    expect(page.locator(".took")).to_contain_text("Nobody has timed it")
    size = control(page, "option").first
    size.fill("some")
    size.press("Enter")
    expect(page.locator(".field-error")).to_contain_text("Whole numbers")
    size.fill("400")
    size.press("Enter")
    expect(page.locator(".command-line")).to_have_text("cllm bench prepare --size=400")
    control(page, "start").click()
    job = page.locator(".job")
    expect(job).to_have_attribute("data-state", "running")
    expect(control(page, "start")).to_be_disabled()
    control(page, "stop").click()
    expect(job).to_have_attribute("data-state", "stopped", timeout=LONG)
    expect(job).to_contain_text("before it wrote a figure")
    assert not list((studio.workspace / "benchmarks/history").glob("*-prepare/*.json"))

    control(page, "defaults").click()
    expect(page.locator(".command-line")).to_have_text("cllm bench prepare")
    size.fill("1")
    size.press("Enter")
    control(page, "start").click()
    expect(job).to_have_attribute("data-state", "done", timeout=LONG)
    if not page.locator(".said pre").is_visible():
        control(page, "log").click()
    expect(page.locator(".said pre")).to_contain_text("1 MB")
    control(page, "log").click()
    expect(page.locator(".said pre")).to_be_hidden()
    expect(page.locator(".took")).to_contain_text("as it took here with these options")
    control(page, "open-result").first.click()
    expect(page.locator(".page h1")).to_contain_text("cllm data prepare")
    (file,) = (studio.workspace / "benchmarks/history").glob("*-prepare/prepare.json")
    seconds = json.loads(file.read_text())["rows"][0]["seconds"]
    expect(page.get_by_role("row").filter(has_text="1 MB")).to_contain_text(f"{seconds:.3f}"[:4])
    expect(control(page, "table").filter(has_text="prepare")).to_have_count(1)


@covers("choice")
def test_choices_and_switches(page: Any, studio: Any) -> None:
    show(page, studio, bench="train-step")
    line = page.locator(".command-line")
    expect(line).to_have_text("cllm bench train-step")
    page.get_by_label("compile fp32").uncheck(force=True)
    expect(line).to_contain_text("'--peers=eager fp32'")
    expect(line).not_to_contain_text("compile fp32")
    page.get_by_label("preset").select_option("nano")
    page.get_by_label("skip memory").check(force=True)
    page.get_by_label("rounds").fill("2")
    page.get_by_label("rounds").press("Enter")
    expect(line).to_contain_text("--preset=nano")
    expect(line).to_contain_text("--rounds=2")
    expect(line).to_contain_text("--skip-memory")
    control(page, "command").filter(has_text="gemm").click()
    expect(line).to_have_text("cllm bench gemm")
    page.go_back()
    expect(line).to_contain_text("--rounds=2")  # what was chosen stays
    control(page, "command").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.control") == "bench.command"
    assert control(page, "command").nth(1).evaluate("e => e === document.activeElement")


@covers("row", "history-row", "history-figure", "measurement", "again")
def test_the_history_of_a_figure(page: Any, studio: Any) -> None:
    show(page, studio)
    control(page, "table").filter(has_text="numbers").click()
    expect(page.locator(".origin")).to_contain_text("3 Jan 2026")
    expect(page.locator(".origin")).to_contain_text("ccccccc")
    table = page.get_by_role("table", name="Figures")
    expect(table).to_contain_text("2.000")
    expect(table).to_contain_text("50.0")
    expect(table).to_contain_text("✓ within")
    expect(page.locator(".chart canvas")).to_be_visible()
    expect(page.locator(".legend-run")).to_have_count(2)  # machines told apart
    listed = page.get_by_role("table", name="Measurements").get_by_role("row")
    expect(listed).to_have_count(4)
    expect(listed.nth(1)).to_contain_text("Another")
    expect(listed.nth(2)).to_contain_text("bbbbbbb+")
    expect(listed.nth(2)).to_contain_text("another machine")
    control(page, "measurement").nth(2).click()
    expect(page.locator(".origin")).to_contain_text("1 Jan 2026")
    expect(page.locator(".origin")).to_contain_text("not the newest")
    expect(page).to_have_url(re.compile("file=benchmarks%2Fhistory%2Fa"))
    expect(listed.nth(2)).to_contain_text("1.000")  # the same figure, of the same machine
    control(page, "history-figure").select_option("gmpy2_ratio")
    expect(page).to_have_url(re.compile("figure=gmpy2_ratio"))
    expect(listed.nth(1)).to_contain_text("2.000\u202f×")
    control(page, "row").filter(has_text="exp").click()
    expect(page).to_have_url(re.compile("row=exp"))
    control(page, "history-row").select_option("exp")
    page.reload()  # the link holds all of it
    expect(control(page, "history-figure")).to_have_value("gmpy2_ratio")
    expect(page.locator(".origin")).to_contain_text("1 Jan 2026")
    control(page, "again").click()
    expect(page.locator(".page h1")).to_have_text("numbers")


@covers("retry")
def test_lists_that_cannot_be_read_are_tried_again(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio) as (page, watch):
        watch.allow("500")
        page.route("**/api/bench/*", lambda route: route.fulfill(status=500, body='{"error": "the disk is gone"}'))
        page.goto(studio.at("bench"))
        expect(page.locator(".lists-note").first).to_contain_text("the disk is gone")
        page.unroute("**/api/bench/*")
        control(page, "retry").click()
        expect(control(page, "command").first).to_be_visible()


# ------------------------------------------------------------------------------------------------------------ studies


@covers("part", "study", "filter", "cell", "silent", "study-file")
def test_committed_results(page: Any, studio: Any) -> None:
    show(page, studio)
    page.get_by_role("radio", name="Studies").click()
    expect(control(page, "study")).to_have_count(4)
    control(page, "filter").fill("embedding")
    expect(control(page, "study")).to_have_count(1)
    control(page, "study").click()
    raw = json.loads((STUDIES / "positions" / "results.json").read_text())
    expect(page.locator(".page h1")).to_have_text(raw["title"])
    conclusion = page.locator(".conclusion")
    expect(conclusion).to_contain_text("positions=rope, init=normal is better than")
    expect(conclusion.locator("details li").first).to_be_hidden()
    control(page, "silent").click()
    expect(conclusion.locator("details li")).to_have_count(9)
    rows = page.get_by_role("table", name="Cells").get_by_role("row")
    expect(rows).to_have_count(15)
    rope = next(one for one in raw["comparisons"] if one["name"] == "positions=rope, init=normal")
    row = rows.filter(has_text=rope["name"])
    expect(row).to_contain_text(f"−{abs(rope['mean_difference']):.3f}")
    expect(row).to_contain_text(f"−{abs(rope['low']):.3f} … −{abs(rope['high']):.3f}")
    expect(row).to_contain_text("lower")
    expect(row.locator(".forest-pair")).to_have_count(5)
    expect(page.locator(".chart canvas")).to_be_visible()
    drawn = page.get_by_role("checkbox", checked=True)
    expect(drawn).to_have_count(6)
    control(page, "cell").first.uncheck(force=True)
    expect(drawn).to_have_count(5)
    expect(page).to_have_url(re.compile("on="))
    expect(page.get_by_role("table", name="Loss at other lengths")).to_contain_text("no position for it")
    control(page, "study-file").click()
    expect(page.locator(".said pre")).to_contain_text("[grid]")
    control(page, "filter").fill("")


@covers("study-train", "study-pause", "study-continue", "study-stop")
def test_a_study_pauses_and_stops(page: Any, studio: Any) -> None:
    """A study that does not end by itself before somebody stops it, however slow the browser."""
    show(page, studio, "studies", study="ocean.toml")
    expect(page.locator(".page")).to_contain_text("not trained yet")
    control(page, "study-train").click()
    words = page.locator(".job-words b")
    expect(words).to_have_text("running")
    runs = page.get_by_role("table", name="Loss of each run")
    expect(runs.locator(".now")).to_contain_text(re.compile(r"/100.000"), timeout=LONG)
    control(page, "study-pause").click()
    expect(words).to_have_text("paused")
    control(page, "study-continue").click()
    expect(words).to_have_text("running")
    control(page, "study-stop").click()
    expect(words).to_have_text("unfinished", timeout=LONG)
    control(page, "study-train").click()  # goes on where it stopped
    expect(words).to_have_text("running")
    control(page, "study-stop").click()
    expect(words).to_have_text("unfinished", timeout=LONG)


@covers("study-train", "study-report")
def test_a_study_is_trained(page: Any, studio: Any) -> None:
    show(page, studio, "studies", study="sea.toml")
    expect(page.locator(".page")).to_contain_text("not trained yet")
    control(page, "study-train").click()
    words = page.locator(".job-words b")
    expect(words).to_have_text("complete", timeout=LONG)
    results = json.loads((studio.workspace / "studies/sea/results.json").read_text())
    (compared,) = results["comparisons"]
    row = page.get_by_role("table", name="Cells").get_by_role("row").filter(has_text=compared["name"])
    expect(row).to_contain_text(f"{abs(compared['mean_difference']):.3f}")
    expect(row).to_contain_text(compared["verdict"])
    expect(page.locator(".conclusion")).to_contain_text("dropout=0.1")
    control(page, "study-report").click()
    expect(page.locator(".markdown h2").first).to_have_text("Dropout on the sea")
    expect(page.locator(".markdown img")).to_be_visible()  # curves.svg


@covers("new", "new-name", "new-text", "make", "making-close", "study-edit", "first-study", "first-note")
def test_the_first_study_and_note(browser: Any, tmp_path: Path) -> None:
    with harness.start_studio(tmp_path / "empty") as studio, harness.signed_in(browser, studio) as (page, watch):
        watch.allow("40[09]")
        serving.add_text(studio.workspace)
        show(page, studio, "studies")
        control(page, "first-study").click()
        control(page, "making-close").click()
        expect(page.locator("dialog[open]")).to_have_count(0)
        control(page, "new").click()
        expect(control(page, "make")).to_be_disabled()
        control(page, "new-name").fill("my-study")
        control(page, "new-text").select_option("sea.txt")
        control(page, "make").click()
        expect(page.locator(".study-good")).to_contain_text("2 cells × 5 seeds = 10 runs of 300 steps")
        text = control(page, "text")
        text.fill(text.input_value().replace("model.dropout", "model.dropuot"))
        control(page, "save").click()
        expect(page.locator(".study-check .job-error")).to_contain_text("model.dropuot")
        text.fill(text.input_value().replace("model.dropuot", "model.dropout"))
        control(page, "save").click()
        expect(page.locator(".study-good")).to_be_visible()
        control(page, "done").click()
        expect(page.locator(".page h1")).to_have_text("My study")
        control(page, "study-edit").click()
        expect(control(page, "text")).to_have_value(re.compile("model.dropout"))
        page.get_by_role("radio", name="Notes").click()
        control(page, "first-note").click()
        control(page, "new-name").fill("first")
        control(page, "new-name").press("Enter")
        expect(control(page, "text")).to_have_value("# First\n\n")
        assert (studio.workspace / "first.md").read_text() == "# First\n\n"
        control(page, "new").click()
        control(page, "new-name").fill("first")
        control(page, "make").click()
        expect(page.locator("dialog .field-error")).to_contain_text("there already")


# -------------------------------------------------------------------------------------------------------------- notes


@covers("note", "note-link", "note-heading", "note-web")
def test_a_note_is_shown_and_can_do_no_harm(page: Any, studio: Any) -> None:
    show(page, studio, "notes")
    control(page, "note").filter(has_text="Ideas").click()
    note = page.locator(".markdown")
    expect(note.locator("h2").first).to_have_text("Ideas")
    expect(note).to_contain_text('<script>document.title = "stolen"</script>')
    expect(page).to_have_title(re.compile("Bench"))
    expect(note.locator("img")).to_have_count(1)
    assert note.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") == 60
    expect(note).to_contain_text("a picture that is not in the workspace is not loaded")
    expect(note.locator("table td").nth(1)).to_have_text("2")
    expect(note.locator(".note-path")).to_have_text("bad")
    web = control(page, "note-web")
    expect(web).to_have_attribute("href", "https://example.org/x")
    expect(web).to_have_attribute("rel", "noopener noreferrer")
    expect(web).to_have_attribute("target", "_blank")
    control(page, "note-heading").click()
    expect(note.locator("#note-later")).to_be_in_viewport()
    control(page, "note-link").click()
    expect(note.locator("h2").first).to_have_text("Second")
    expect(note.locator("#note-the-end")).to_be_in_viewport()
    page.go_back()
    expect(note.locator("h2").first).to_have_text("Ideas")


@covers("edit", "text", "save", "done", "revert")
def test_a_note_is_written(page: Any, studio: Any) -> None:
    path = studio.workspace / "written.md"
    path.write_text("# Old\n")
    show(page, studio, "notes", note="written.md")
    control(page, "edit").click()
    text = control(page, "text")
    expect(text).to_be_focused()
    expect(control(page, "save")).to_be_disabled()
    text.fill("# New\n\n**bold**\n")
    expect(page.locator(".editor-look strong")).to_have_text("bold")
    expect(page.locator(".editor")).to_have_attribute("data-dirty", "true")
    page.reload()  # what was typed and not saved is still there
    expect(text).to_have_value("# New\n\n**bold**\n")
    assert path.read_text() == "# Old\n"
    control(page, "revert").click()
    expect(text).to_have_value("# Old\n")
    text.fill("# Newer\n")
    text.press("Control+s")
    serving.until(lambda: path.read_text() == "# Newer\n")
    expect(page.locator(".editor")).to_have_attribute("data-dirty", "false")
    text.fill("# Newest\n")
    control(page, "done").click()
    expect(page.locator(".note .markdown h2")).to_have_text("Newest")
    assert path.read_text() == "# Newest\n"

    def pressed() -> bool:  # the key is listened to a moment after the page is drawn
        page.keyboard.press("e")
        try:  # a second key would be written into the text
            expect(text).to_be_visible(timeout=3000)
        except AssertionError:
            return False
        return True

    serving.until(pressed, every=0.2)
    expect(text).to_be_focused()
    text.fill("# By button\n")
    control(page, "save").click()
    serving.until(lambda: path.read_text() == "# By button\n")
    expect(page.locator(".editor")).to_have_attribute("data-dirty", "false")


def test_a_note_that_changed_is_read_again_when_the_window_comes_back(page: Any, studio: Any) -> None:
    path = studio.workspace / "elsewhere.md"
    path.write_text("# Before\n")
    show(page, studio, "notes", note="elsewhere.md")
    expect(page.locator(".markdown h2")).to_have_text("Before")
    path.write_text("# After\n")
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".markdown h2")).to_have_text("After")


@covers("conflict-copy", "conflict-mine", "conflict-theirs")
def test_a_conflict_loses_nothing(browser: Any, studio: Any) -> None:
    path = studio.workspace / "shared.md"
    with harness.signed_in(browser, studio) as (page, watch):
        watch.allow("409")

        def meet(mine: str, theirs: str | None) -> None:
            path.write_text("start")
            show(page, studio, bench="machine")
            expect(page.locator(".page h1")).to_have_text("machine")  # else the note stays open
            show(page, studio, "notes", note="shared.md", edit=1)
            expect(control(page, "text")).to_have_value("start")
            control(page, "text").fill(mine)
            path.unlink() if theirs is None else path.write_text(theirs)
            control(page, "save").click()
            expect(page.locator(".conflict")).to_be_visible()
            assert theirs is None or path.read_text() == theirs
            expect(control(page, "text")).to_have_value(mine)

        meet("mine", "theirs")
        expect(page.locator(".editor-look")).to_contain_text("theirs")
        control(page, "conflict-copy").click()
        expect(page.locator(".note-name").first).to_contain_text("shared-mine.md")
        assert (path.read_text(), (studio.workspace / "shared-mine.md").read_text()) == ("theirs", "mine")
        meet("mine again", "theirs again")
        control(page, "conflict-theirs").click()
        expect(control(page, "text")).to_have_value("theirs again")
        expect(page.locator(".conflict")).to_have_count(0)
        meet("mine at last", "theirs at last")
        control(page, "conflict-mine").click()
        expect(page.locator(".conflict")).to_have_count(0)
        serving.until(lambda: path.read_text() == "mine at last")
        meet("mine alone", None)
        expect(page.locator(".conflict")).to_contain_text("removed")
        control(page, "conflict-mine").click()
        serving.until(lambda: path.exists() and path.read_text() == "mine alone")


# ------------------------------------------------------------------------------------------------------ all of them


@covers("back")
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_narrow_pages_hold_everything(browser: Any, studio: Any, scheme: str) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True}
    pages: list[dict[str, Any]] = [
        {},
        {"bench": "train-step"},
        {"table": "numbers"},
        {"part": "studies", "study": "docs/positions.toml", "folder": "docs/positions"},
        {"part": "notes", "note": "ideas.md"},
        {"part": "notes", "note": "ideas.md", "edit": 1},
    ]
    with harness.signed_in(browser, studio, **options) as (page, _):
        for params in pages:
            page.goto(studio.at("bench", **params))
            page.locator(".page h1:visible, .item:visible, .markdown:visible, .editor-text:visible").first.wait_for()
            wide = page.evaluate(
                "[...document.querySelectorAll('.bench *')]"
                ".filter(e => e.getBoundingClientRect().right > innerWidth + 1"
                " && !e.closest('.table-frame, pre, canvas, svg, .u-wrap'))"
                ".map(e => e.outerHTML.slice(0, 200))"
            )
            assert wide == [], params
        control(page, "back").click()
        expect(control(page, "note").first).to_be_visible()
        expect(page.locator(".editor")).to_have_count(0)


def test_every_control_has_a_test(page: Any, studio: Any) -> None:
    """Those that can be seen in each state of the screen, and every name in its source."""
    seen: set[str] = set()
    for params in (
        {"bench": "decode"},
        {"table": "numbers"},
        {"part": "studies"},
        {"part": "notes", "note": "ideas.md"},
    ):
        page.goto(studio.at("bench", **params))
        page.locator(".page h1:visible, .markdown:visible").first.wait_for()
        seen |= harness.controls(page)
    source = "".join(path.read_text() for path in SOURCE.glob("*.tsx"))
    seen |= set(re.findall(r"""(?:data-)?control(?:=|: )"(bench\.[\w-]+)\"""", source))
    seen = {name for name in seen if name.startswith("bench.")} - {"bench.making"} | {"bench.making-close"}
    assert seen - tested == set()
    assert {name for name in tested if name.startswith("bench.")} - seen == set()
