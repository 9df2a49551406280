"""The Train screen in Chromium, with real trainings: every control does what it says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cllm.studio.jobs import Jobs
from cllm.studio.workspace import Workspace
from cllm.training.events import read_events, series

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness, serving = sys.modules["browser"], sys.modules["serving"]
tested: set[str] = set()
SOURCE = harness.ROOT / "web" / "src" / "screens" / "train"
FAST = {"train.model.layers": "1", "train.model.width": "16", "train.model.heads": "2", "train.model.ff": "16"}


def covers(*names: str) -> Callable[[Any], Any]:
    """These controls are used by the test."""
    tested.update(names)
    return lambda test: test


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='{name}']")


def fill(page: Any, name: str, text: str) -> None:
    control(page, name).fill(text)
    control(page, name).press("Enter")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with texts, two logs, and a run with a checkpoint, notes and a sample."""
    workspace = tmp_path_factory.mktemp("train") / "workspace"
    workspace.mkdir()
    serving.add_text(workspace, "sea.txt")
    serving.add_text(workspace, "poems/one.txt", "One.\n" * 40)
    serving.add_text(workspace, "poems/two.txt", "Two.\n" * 40)
    serving.add_trained(workspace, "runs/small")
    with (workspace / "runs/small/events.jsonl").open("a") as log:
        log.write('{"event": "sample", "step": 2, "time": 1, "text": "a sample it wrote"}\n')
    serving.add_log(workspace, "runs/alpha", 400)
    serving.add_log(workspace, "runs/beta", 200, preset="small")
    with harness.start_studio(workspace) as running:
        yield running
    serving.end_jobs(workspace)


@pytest.fixture(scope="module")
def browser(studio: Any) -> Iterator[Any]:
    with harness.open_browser() as opened:
        yield opened


def show(page: Any, studio: Any, **params: Any) -> None:
    page.goto(studio.at("train", **params))
    expect(control(page, "train.new")).to_be_attached()


def expand_settings(page: Any) -> None:
    if not control(page, "train.setting-filter").is_visible():
        control(page, "train.all-settings").click()


# ---------------------------------------------------------------------------------------------------------- the list


@covers("train.filter", "train.order", "train.open")
def test_the_list_is_filtered_and_ordered(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/alpha")
    expect(page.locator(".run-name")).to_have_count(3)
    control(page, "train.filter").fill("alp")
    expect(page.locator(".run-name")).to_have_count(1)
    control(page, "train.filter").fill("nothing like it")
    expect(page.locator(".runs-note")).to_be_visible()
    control(page, "train.filter").fill("")
    control(page, "train.order").select_option("name")
    expect(page.locator(".run-name")).to_have_text(["alpha", "beta", "small"])
    control(page, "train.order").select_option("best")
    best = {
        n: min(series(read_events(studio.workspace / f"runs/{n}/events.jsonl"), "loss", "eval")[1])
        for n in ("alpha", "beta", "small")
    }
    expect(page.locator(".run-name")).to_have_text(sorted(best, key=best.__getitem__))
    control(page, "train.order").select_option("newest")
    control(page, "train.open").filter(has_text="beta").click()
    expect(page.locator("h1")).to_have_text("beta")
    expect(page).to_have_url(re.compile("run=runs%2Fbeta"))
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.control") == "train.open"


@covers("train.compare", "train.tab-differences")
def test_runs_are_compared(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/alpha")
    expect(page.locator(".legend-run")).to_have_count(1)
    page.get_by_label("beta on the chart").check(force=True)
    expect(page.locator(".legend-run")).to_have_count(2)
    control(page, "train.tab-differences").click()
    row = page.get_by_role("row").filter(has_text="train.steps")
    expect(row).to_contain_text("400")
    expect(row).to_contain_text("200")
    expect(page.get_by_role("row").filter(has_text=re.compile("^preset"))).to_contain_text("small")
    page.get_by_label("beta on the chart").uncheck(force=True)
    expect(page.locator(".legend-run")).to_have_count(1)
    expect(control(page, "train.tab-differences")).to_have_count(0)


@covers("train.retry")
def test_a_list_that_cannot_be_read_is_tried_again(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio) as (page, watch):
        watch.allow("500")
        page.route("**/api/train/runs", lambda route: route.fulfill(status=500, body='{"error": "the disk is gone"}'))
        page.goto(studio.at("train"))
        expect(page.locator(".runs-note")).to_contain_text("the disk is gone")
        page.unroute("**/api/train/runs")
        control(page, "train.retry").click()
        expect(page.locator(".run-name")).to_have_count(3)


@covers("train.first", "train.new", "train.back")
def test_an_empty_workspace_says_the_next_step(browser: Any, tmp_path: Path) -> None:
    with harness.start_studio(tmp_path / "empty") as studio, harness.signed_in(browser, studio) as (page, _):
        page.goto(studio.at("train"))
        control(page, "train.first").click()
        expect(page.locator("h1")).to_have_text("New run")
        expect(page.locator(".picker")).to_contain_text(str(tmp_path / "empty"))  # where texts belong
        expect(control(page, "train.start")).to_be_disabled()
        # a text that comes is found
        serving.add_text(tmp_path / "empty")
        control(page, "train.data-again").click()
        expect(page.locator(".text-row").filter(has_text="sea.txt")).to_have_count(1)
        page.set_viewport_size({"width": 390, "height": 844})
        control(page, "train.back").click()
        expect(control(page, "train.new")).to_be_visible()
        control(page, "train.new").click()
        expect(page.locator("h1")).to_have_text("New run")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


# -------------------------------------------------------------------------------------------------------- the curves


def asked(page: Any, act: Callable[[], Any], where: Callable[[Any], bool] = lambda body: True) -> dict[str, Any]:
    """What the page asks for its curves when `act` is done."""

    def fits(request: Any) -> bool:
        return request.url.endswith("/api/train/curves") and where(request.post_data_json)

    with page.expect_request(fits) as info:
        act()
    return info.value.post_data_json  # type: ignore[no-any-return]


@covers("train.metric", "train.axis", "train.smoothing", "train.log-x", "train.log-y", "train.small")
def test_what_is_on_the_axes(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/alpha")
    legend = page.locator(".legend-run b")
    expect(legend).not_to_have_text("–")
    log = read_events(studio.workspace / "runs/alpha/events.jsonl")
    control(page, "train.smoothing").select_option("off")
    last = series(log, "loss")[1][-1]
    expect(legend).to_have_text(f"{float(f'{last:.4g}'):g}")
    control(page, "train.metric").select_option("step.lr")
    expect(legend).to_have_text("0.001")
    body = asked(page, lambda: control(page, "train.axis").select_option("tokens"), lambda b: b["x"] == "tokens")
    assert body["metrics"][0] == "step.lr"
    asked(page, lambda: control(page, "train.axis").select_option("step.loss"), lambda b: b["x"] == "step.loss")
    control(page, "train.axis").select_option("time")
    asked(page, lambda: control(page, "train.log-x").check(force=True), lambda body: body["log_x"])
    control(page, "train.log-x").uncheck(force=True)
    before = _picture(page)
    control(page, "train.log-y").check(force=True)
    serving.until(lambda: _picture(page) != before)
    control(page, "train.log-y").uncheck(force=True)
    asked(page, lambda: control(page, "train.smoothing").select_option("200"), lambda b: b["half_life"] == 200)
    control(page, "train.axis").select_option("step")
    control(page, "train.smoothing").select_option("auto")
    small = page.get_by_title("Show gradient norm large", exact=True)
    small.click()
    expect(control(page, "train.metric")).to_have_value("step.grad_norm")
    control(page, "train.metric").select_option("step.loss")


def test_gradient_norms_by_group(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/alpha", **{"with": "runs/beta"})
    expect(control(page, "train.small").filter(has_text="by group")).to_be_visible()
    control(page, "train.small").filter(has_text="by group").click()
    expect(control(page, "train.metric")).to_have_value("step.grad_norms")
    legend = page.locator(".curves .legend-run")  # of the first run alone
    expect(legend).to_have_text(["embeddings 0.1", "attention 0.5", "feed-forward 0.7", "layer norms 0.5"])
    page.locator(".curves-frame .u-over").hover()
    expect(page.locator(".legend-note")).to_contain_text(re.compile(r"at \d"))
    expect(legend).to_have_text(["embeddings 0.1", "attention 0.5", "feed-forward 0.7", "layer norms 0.5"])


def _picture(page: Any) -> str:
    return str(page.locator(".curves-frame canvas").evaluate("c => c.toDataURL()"))


@covers("train.chart", "train.zoom-reset")
def test_zoom_by_mouse_and_keyboard(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/alpha")
    over = page.locator(".curves-frame .u-over")
    expect(over).to_be_visible()
    expect(control(page, "train.like")).to_be_visible()  # all of the run is there: nothing moves any more

    def zoomed(body: Any) -> bool:
        return body["low"] is not None

    def whole(body: Any) -> bool:
        return body["low"] is None

    def drag() -> None:
        box = over.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80, steps=4)
        page.mouse.up()

    body = asked(page, drag, zoomed)
    assert body["low"] == pytest.approx(100, abs=4)  # the axis goes from 1 to 400
    assert body["high"] == pytest.approx(200, abs=4)
    expect(page.locator(".legend-note")).to_contain_text(re.compile(r"at \d+|points"))
    chart = control(page, "train.chart")
    page.route("**/api/train/curves", lambda route: None)  # all is all at once, not when the answer comes
    asked(page, lambda: control(page, "train.zoom-reset").click(), whole)
    chart.focus()
    body = asked(page, lambda: page.keyboard.press("+"), zoomed)
    page.unroute("**/api/train/curves")
    assert body["low"] == pytest.approx(100, abs=4)
    assert body["high"] == pytest.approx(300, abs=4)
    expect(control(page, "train.zoom-reset")).to_be_visible()
    moved = asked(page, lambda: page.keyboard.press("ArrowRight"), zoomed)
    assert moved["low"] > body["low"]
    asked(page, lambda: page.keyboard.press("0"), whole)
    expect(control(page, "train.zoom-reset")).to_have_count(0)


def test_a_drag_begins_where_the_pointer_is(page: Any, studio: Any) -> None:
    """Also when something above the chart has grown since the pointer came over it."""
    show(page, studio, run="runs/alpha")
    over = page.locator(".curves-frame .u-over")
    expect(control(page, "train.like")).to_be_visible()
    box = over.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 60)
    expect(page.locator(".legend-note")).to_contain_text(re.compile(r"at \d"))
    page.locator(".view").evaluate(
        "e => { e.style.paddingLeft = '82px'; e.style.maxWidth = 'none'; e.style.width = `${e.clientWidth + 60}px`; }"
    )  # moved, its size the same
    assert over.bounding_box()["x"] == box["x"] + 60
    box = over.bounding_box()

    def drag() -> None:
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80, steps=4)
        page.mouse.up()

    body = asked(page, drag, lambda b: b["low"] is not None)
    assert body["low"] == pytest.approx(100, abs=4)
    assert body["high"] == pytest.approx(200, abs=4)


# ------------------------------------------------------------------------------------------------- what a run left


@covers(
    "train.tab-samples",
    "train.tab-checkpoints",
    "train.tab-log",
    "train.tab-settings",
    "train.checkpoint",
    "train.inside",
)
def test_what_a_run_left(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/small")
    control(page, "train.tab-samples").click()
    expect(page.locator(".sample")).to_have_text("a sample it wrote")
    control(page, "train.tab-settings").click()
    setting = page.locator(".settings div").filter(has_text="model.context")
    expect(setting).to_contain_text("32")
    control(page, "train.tab-log").click()
    expect(page.get_by_text("This run was not started here")).to_be_visible()
    control(page, "train.tab-checkpoints").click()
    newest = control(page, "train.checkpoint").first
    expect(newest).to_contain_text("step 2")
    expect(newest).to_contain_text("latest")
    newest.click()
    expect(page).to_have_url(re.compile(r"#generate\?run=runs%2Fsmall&checkpoint=latest"))
    expect(control(page, "generate.run")).to_have_value("runs/small")
    show(page, studio, run="runs/small")
    control(page, "train.tab-checkpoints").click()
    control(page, "train.inside").first.click()
    expect(page).to_have_url(re.compile(r"#inside\?run=runs%2Fsmall&checkpoint=latest"))
    expect(control(page, "inside.run")).to_have_value("runs/small")


@covers("train.tab-notes", "train.notes")
def test_notes_are_kept(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/alpha")
    control(page, "train.tab-notes").click()
    control(page, "train.notes").fill("longer warm-up next time")
    control(page, "train.tab-samples").click()  # leaving it saves it
    path = studio.workspace / "runs/alpha/notes.md"
    serving.until(path.exists)
    serving.until(lambda: path.read_text() == "longer warm-up next time")
    page.reload()
    control(page, "train.tab-notes").click()
    expect(control(page, "train.notes")).to_have_value("longer warm-up next time")
    control(page, "train.notes").fill("")
    serving.until(lambda: not path.exists())  # by itself, a moment after the last key


# --------------------------------------------------------------------------------------------------------- new runs


@covers("train.data-filter", "train.data-again", "train.text", "train.inspect")
def test_a_text_is_chosen_and_looked_at(page: Any, studio: Any) -> None:
    show(page, studio, new=1)
    rows = page.locator(".text-row")
    control(page, "train.data-filter").fill("poems")
    expect(rows).to_have_count(3)
    control(page, "train.data-filter").fill("")
    sea = page.get_by_role("checkbox", name=re.compile("sea.txt"))
    if sea.is_checked():
        sea.uncheck()
    expect(control(page, "train.start")).to_be_disabled()
    sea.check()
    expect(page.locator(".preview-text")).to_contain_text("The sea was calm")
    control(page, "train.inspect").click()
    expect(page.locator(".preview-facts")).to_contain_text("1 document")
    expect(page.locator(".preview-facts")).to_contain_text("all of it readable")
    serving.add_text(studio.workspace, "poems/three.txt")
    control(page, "train.data-again").click()
    expect(rows.filter(has_text="three.txt")).to_have_count(1)
    (studio.workspace / "poems/three.txt").unlink()


@covers("train.paste", "train.paste-name", "train.paste-text", "train.paste-save", "train.paste-close")
def test_a_text_is_pasted(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("400")
    show(page, studio, new=1)
    control(page, "train.paste").click()
    expect(control(page, "train.paste-save")).to_be_disabled()
    control(page, "train.paste-name").fill("bad/name")
    control(page, "train.paste-text").fill("Mine.\n" * 50)
    control(page, "train.paste-save").click()
    expect(page.locator("dialog .field-error")).to_contain_text("letters")
    control(page, "train.paste-close").click()
    expect(control(page, "train.paste-save")).to_have_count(0)
    control(page, "train.paste").click()
    control(page, "train.paste-name").fill("mine")
    control(page, "train.paste-save").click()
    expect(page.get_by_role("checkbox", name=re.compile("mine.txt"))).to_be_checked()
    assert (studio.workspace / "texts/mine.txt").read_text() == "Mine.\n" * 50
    page.get_by_role("checkbox", name=re.compile("mine.txt")).uncheck()
    (studio.workspace / "texts/mine.txt").unlink()


@covers("train.data-retry")
def test_texts_that_cannot_be_listed_are_tried_again(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio) as (page, watch):
        watch.allow("500")
        page.route("**/api/train/data", lambda route: route.fulfill(status=500, body='{"error": "the disk is gone"}'))
        page.goto(studio.at("train", new=1))
        expect(page.get_by_text("the disk is gone")).to_be_visible()
        page.unroute("**/api/train/data")
        control(page, "train.data-retry").click()
        expect(page.locator(".text-row").first).to_be_visible()


PLANNED = {
    "train.model.layers": ("3", "model.layers", 3), "train.model.width": ("64", "model.width", 64),
    "train.model.heads": ("8", "model.heads", 8), "train.model.ff": ("96", "model.ff", 96),
    "train.model.context": ("128", "model.context", 128), "train.model.dropout": ("0.2", "model.dropout", 0.2),
    "train.train.batch": ("4", "train.batch", 4), "train.optim.lr": ("3e-4", "optim.lr", 3e-4),
    "train.seed": ("7", "seed", 7), "train.data.tokenizer": ("char", "data.tokenizer", "char"),
}  # fmt: skip


def planned(page: Any, act: Callable[[], Any], key: str, value: Any) -> Any:
    """The answer to the plan in which that setting has that value (None: is not said)."""

    def fits(response: Any) -> bool:
        if not response.url.endswith("/api/train/plan"):
            return False
        return response.request.post_data_json["settings"].get(key) == value  # type: ignore[no-any-return]

    with page.expect_response(fits) as info:
        act()
    return info.value


@covers("train.preset", "train.schedule.name", *PLANNED)
def test_every_field_reaches_the_plan(page: Any, studio: Any) -> None:
    show(page, studio, new=1)
    control(page, "train.preset").get_by_role("radio", name="nano").click()
    expect(page.locator(".plan-big").first).to_have_text("43.9\u202fk")
    for name, (text, key, value) in PLANNED.items():
        answer = planned(page, lambda name=name, text=text: fill(page, name, text), key, value)
        assert answer.status == 200
    schedule = control(page, "train.schedule.name")
    answer = planned(page, lambda: schedule.select_option("linear"), "schedule.name", "linear")
    layers, width, ff, context, vocab = 3, 64, 96, 128, 512
    parameters = (vocab + context + 2) * width + layers * (
        4 * width * (width + 1) + 4 * width + 2 * ff * width + ff + width
    )
    assert answer.json()["parameters"] == parameters
    control(page, "train.preset").get_by_role("radio", name="small").click()  # its own sizes again
    expect(control(page, "train.model.layers")).to_have_value("4")


@covers("train.length", "train.minutes", "train.steps", "train.speed")
def test_how_long(page: Any, studio: Any) -> None:
    show(page, studio, new=1)
    control(page, "train.preset").get_by_role("radio", name="nano").click()
    time = page.locator(".plan-big").nth(2)
    fill(page, "train.minutes", "2")
    expect(time).to_have_text("2 min 00 s")
    control(page, "train.length").get_by_role("radio", name="steps").click()
    fill(page, "train.steps", "100000")
    expect(time).to_have_text("–")
    control(page, "train.speed").click()
    expect(page.get_by_text("tokens/s").first).to_be_visible()
    expect(time).to_have_text(re.compile(r"(s|min|h)"))
    control(page, "train.length").get_by_role("radio", name="minutes").click()


@covers("train.all-settings", "train.setting-filter", "train.setting")
def test_every_other_setting_is_there(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("400")
    show(page, studio, new=1)
    expand_settings(page)
    fields = control(page, "train.setting")
    expect(fields.first).to_be_visible()
    from cllm.studio.settings_form import all_settings

    serving.until(lambda: fields.count() >= len(all_settings()) - 14)
    control(page, "train.setting-filter").fill("clip")
    clip = page.get_by_label("optim.clip", exact=True)
    assert planned(page, lambda: (clip.fill("0.5"), clip.press("Enter")), "optim.clip", 0.5).status == 200
    control(page, "train.setting-filter").fill("betas")
    betas = page.get_by_label("optim.betas", exact=True)

    def say(text: str, value: Any) -> Any:
        return planned(page, lambda: (betas.fill(text), betas.press("Enter")), "optim.betas", value)

    assert say("0.8, 0.9", [0.8, 0.9]).status == 200
    assert say("0.8, 2", [0.8, 2]).status == 400
    expect(page.locator(".plan .field-error")).to_contain_text("betas")
    expect(control(page, "train.start")).to_be_disabled()
    assert say("", None).status == 200
    expect(page.locator(".plan .field-error")).to_have_count(0)
    control(page, "train.setting-filter").fill("nesterov")
    planned(page, lambda: fields.first.check(force=True), "optim.nesterov", True)
    control(page, "train.setting-filter").fill("")


@covers(
    "train.name", "train.start", "train.pause", "train.continue", "train.stop", "train.resume", "train.copy-command",
)  # fmt: skip
def test_a_training_from_the_form_to_the_end(browser: Any, studio: Any) -> None:
    """Started, watched, paused, continued, stopped, resumed: a real one."""
    options = {"permissions": ["clipboard-read", "clipboard-write"]}
    with harness.signed_in(browser, studio, **options) as (page, watch):
        watch.allow("400")
        show(page, studio, new=1)
        for row in page.locator(".text-row input:checked").all():
            row.uncheck()
        page.get_by_role("checkbox", name=re.compile("sea.txt")).check()
        control(page, "train.preset").get_by_role("radio", name="nano").click()
        for name, text in FAST.items():
            fill(page, name, text)
        fill(page, "train.data.tokenizer", "char")
        control(page, "train.length").get_by_role("radio", name="steps").click()
        fill(page, "train.steps", "200000")
        control(page, "train.name").fill("bad:name")
        control(page, "train.start").click()
        expect(page.get_by_role("alert")).to_contain_text("the run's name")
        control(page, "train.name").fill("live")
        control(page, "train.start").click()
        expect(page.locator("h1")).to_have_text("live")
        expect(page.locator(".view-words b")).to_have_text("running", timeout=90_000)
        step = page.locator(".figures dd").first
        expect(step).to_have_text(re.compile(r"[1-9]"), timeout=60_000)
        expect(page.locator(".curves-frame canvas")).to_be_visible()

        control(page, "train.pause").click()
        expect(page.locator(".view-words b")).to_have_text("paused")
        log = studio.workspace / "runs/live/events.jsonl"
        [job] = Jobs(Workspace(studio.workspace)).active()
        serving.until(lambda: "(stopped)" in Path(f"/proc/{job.pid}/status").read_text())
        last = read_events(log)[-1]["step"]  # of a process that stands still
        held = re.compile(rf"^{last:,} / ".replace(",", "\u2009"))
        expect(step).to_have_text(held)
        assert read_events(log)[-1]["step"] == last
        control(page, "train.continue").click()
        expect(page.locator(".view-words b")).to_have_text("running")
        expect(step).not_to_have_text(held)

        control(page, "train.tab-settings").click()
        control(page, "train.copy-command").click()
        expect(page.locator(".toast")).to_contain_text("Copied")
        command = page.evaluate("navigator.clipboard.readText()")
        assert command.startswith("cllm train sea.txt --out runs/live --preset nano")
        control(page, "train.tab-log").click()
        expect(page.locator(".log")).to_contain_text("step")

        control(page, "train.stop").click()
        expect(page.locator(".view-words b")).to_have_text("stopped", timeout=60_000)
        assert read_events(log)[-1]["reason"] == "SIGINT"
        control(page, "train.resume").click()
        expect(page.locator(".view-words b")).to_have_text("running", timeout=90_000)
        serving.until(lambda: any(event["event"] == "resume" for event in read_events(log)))
        control(page, "train.stop").click()
        expect(page.locator(".view-words b")).to_have_text("stopped", timeout=60_000)


@covers("train.like", "train.from", "train.from-none")
def test_runs_after_runs(page: Any, studio: Any) -> None:
    show(page, studio, run="runs/small")
    control(page, "train.like").click()
    expect(page.locator("h1")).to_have_text("New run")
    expect(control(page, "train.model.context")).to_have_value("32")
    expect(control(page, "train.steps")).to_have_value("2")
    expect(control(page, "train.data.tokenizer")).to_have_value("char")
    page.go_back()
    control(page, "train.from").click()
    expect(page.get_by_text("Starts from the weights of")).to_contain_text("runs/small")
    control(page, "train.from-none").click()
    expect(page.get_by_text("Starts from the weights of")).to_have_count(0)
    page.go_back()
    control(page, "train.from").click()
    page.get_by_role("checkbox", name=re.compile("sea.txt")).check()
    control(page, "train.name").fill("child")
    control(page, "train.start").click()
    expect(page.locator(".view-words b")).to_have_text("done", timeout=90_000)
    assert 'start = "runs/small"' in (studio.workspace / "runs/child/run.toml").read_text()


# ------------------------------------------------------------------------------------------------------ all of them


def test_every_control_has_a_test(page: Any, studio: Any) -> None:
    """Those that can be seen in each state of the screen, and every name in its source."""
    seen: set[str] = set()
    for params in ({"run": "runs/alpha", "with": "runs/beta"}, {"run": "runs/small"}, {"new": 1}):
        show(page, studio, **params)
        expect(page.locator("h1")).to_be_visible()
        if "new" in params:
            expand_settings(page)
            expect(control(page, "train.setting").first).to_be_visible()
        else:
            expect(control(page, "train.chart")).to_be_visible()
        for tab in page.get_by_role("tab").all():
            tab.click()
            seen |= harness.controls(page)
        seen |= harness.controls(page)
    source = "".join(path.read_text() for path in SOURCE.glob("*.tsx"))
    seen |= set(re.findall(r"""(?:data-)?control="(train\.[\w.-]+)\"""", source))
    seen = {name for name in seen if name.startswith("train.")} - {"train.paste"} | {"train.paste", "train.paste-close"}
    assert seen - tested == set()
    assert not {name for name in tested if name.startswith("train.")} - seen - {f"train.{key}" for key in PLANNED}


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_narrow_pages_hold_everything(browser: Any, studio: Any, scheme: str) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True}
    with harness.signed_in(browser, studio, **options) as (page, _):
        for params in ({}, {"run": "runs/alpha", "with": "runs/beta"}, {"new": 1}):
            page.goto(studio.at("train", **params))
            page.locator("h1:visible, .run-name:visible").first.wait_for()
            wide = page.evaluate(
                "[...document.querySelectorAll('.train *')]"
                ".filter(e => e.getBoundingClientRect().right > innerWidth + 1"
                " && !e.closest('.tabs, .table-frame, .command, canvas, svg, .u-wrap'))"
                ".map(e => e.outerHTML.slice(0, 200))"
            )
            assert wide == []


@pytest.mark.prove
def test_budget_two_hundred_runs_in_the_page(browser: Any, tmp_path: Path) -> None:
    for n in range(200):
        serving.add_log(tmp_path / "many", f"runs/run-{n:03}", 200, metrics=50)
    with harness.start_studio(tmp_path / "many") as studio, harness.signed_in(browser, studio) as (page, _):
        page.goto(studio.at("train"))
        expect(page.locator(".run-name")).to_have_count(200)
        control(page, "train.filter").fill("run-123")
        expect(page.locator(".run-name")).to_have_count(1)
        page.reload()  # the first time the index reads every log
        expect(page.locator(".run-name")).to_have_count(200)
        timing = page.evaluate(
            "performance.getEntriesByType('resource')"
            ".filter(e => e.name.endsWith('/api/train/runs')).map(e => e.duration)"
        )
        serving.figure("list of 200 runs × 50 metrics, in the page", min(timing), "ms", 500)
        assert min(timing) < 500
