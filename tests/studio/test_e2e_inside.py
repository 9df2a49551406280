"""The screen Inside in Chromium, with a real model: every control does what it says, every figure is the server's."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cllm
from cllm.studio import inside_cloud, inside_tensors, inside_trace

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness, serving = sys.modules["browser"], sys.modules["serving"]
tested: set[str] = set()
SOURCE = harness.ROOT / "web" / "src" / "screens" / "inside"
TEXT = "The gulls cried"


def covers(*names: str) -> Callable[[Any], Any]:
    """These controls are used by the test."""
    tested.update(f"inside.{name}" for name in names)
    return lambda test: test


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='inside.{name}']")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with five runs of one checkpoint each: broken, with a document mask, deep, old, and small."""
    workspace = tmp_path_factory.mktemp("inside") / "workspace"
    workspace.mkdir()
    broken = serving.add_trained(workspace, "runs/broken") / "checkpoints" / "step-00000002" / "weights.safetensors"
    broken.write_bytes(broken.read_bytes()[:-8])
    serving.add_trained(workspace, "runs/masked", **{"data.document_mask": True, "precision": "fp32"})
    serving.add_trained(workspace, "runs/deep", **{"model.layers": 16, "model.width": 64, "precision": "fp32"})
    serving.add_run(workspace, "runs/old")
    serving.add_trained(workspace, "runs/small", precision="fp32")
    with harness.start_studio(workspace) as running:
        yield running


@pytest.fixture(scope="module")
def browser(studio: Any) -> Iterator[Any]:
    with harness.open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(studio: Any) -> str:
    return str(studio.workspace / "runs" / "small")


def show(page: Any, studio: Any, view: str, **params: Any) -> None:
    page.goto(studio.at("inside", **({"run": "runs/small", "view": view, "text": TEXT} | params)))
    expect(control(page, "view")).to_be_visible(timeout=60_000)


def figures(page: Any, of: Any) -> dict[str, str]:
    """A list of figures as it is shown."""
    rows = of.locator("dl > div").all()
    return {row.locator("dt").inner_text(): row.locator("dd").inner_text() for row in rows}


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def same(shown: str, value: float) -> bool:
    """Whether a figure of four digits is the value."""
    return abs(number(shown) - value) <= 6e-4 * abs(value)


@covers("block", "log", "text")
def test_blocks_show_the_pass_and_the_weights(page: Any, studio: Any, folder: str) -> None:
    show(page, studio, "blocks")
    model = cllm.load(folder).model
    expect(page.locator(".diagram-facts")).to_contain_text(f"{model.layout.parameters:,} parameters")
    expect(control(page, "block")).to_have_count(3 + 2 * 8)
    page.locator("[data-block='1.ffn.w1']").click()
    expect(page).to_have_url(re.compile("block=1.ffn.w1"))
    side = page.get_by_label("About Up")
    expect(side.locator(".measured")).to_have_count(3, timeout=60_000)  # the result, W1 and b1
    trace = inside_trace.trace(folder, "latest", TEXT)
    result = next(one for one in trace["ops"] if (one["layer"], one["op"]) == (1, "ffn.w1"))
    weight = inside_tensors.tensor(folder, "latest", "1.ffn.w1")
    for place, of in enumerate((result, weight)):
        told = figures(page, side.locator(".measured").nth(place))
        for key in ("norm", "rms", "mean", "std", "min", "max"):
            assert same(told[key], of[key]), (key, told[key], of[key])
        assert told["non-finite"] == "none"
        bars = side.locator(".measured").nth(place).locator("rect title").all_text_contents()
        assert [int(text.split(": ")[1].split(" of ")[0].replace(",", "")) for text in bars] == of["counts"]
    # logarithmic counts make a rare value's bar taller, not a common one's
    rare = min(range(64), key=lambda i: (of["counts"][i] == 0, of["counts"][i]))
    bar = side.locator(".measured").nth(1).locator("rect").nth(rare)
    before = float(bar.get_attribute("height"))
    control(page, "log").check(force=True)
    expect(bar).not_to_have_attribute("height", str(before))
    assert float(bar.get_attribute("height")) > before
    control(page, "log").uncheck(force=True)
    # another text, typed
    with page.expect_response(lambda r: r.url.endswith("/api/inside/trace")) as info:
        control(page, "text").fill("A sea")
    assert info.value.request.post_data_json["text"] == "A sea"
    expect(page.locator(".text-facts")).to_contain_text("5 tokens")
    expect(page).to_have_url(re.compile(r"text=A\+sea"))
    control(page, "text").fill("a" * 50)
    expect(page.locator(".text-facts .cut")).to_have_text(", the first of 50: the context is full")
    control(page, "text").fill("")  # the run's own
    control(page, "text").press("Tab")
    expect(control(page, "text")).to_have_value(inside_trace.trace(folder, "latest", "")["text"], timeout=30_000)


@covers("view", "run", "checkpoint")
def test_views_and_checkpoints_are_chosen(page: Any, studio: Any) -> None:
    show(page, studio, "blocks")
    for title, locator in (
        ("Tensors", ".tensors .table"),
        ("Attention", ".map"),
        ("Logit lens", ".lens-frame"),
        ("Embedding", ".cloud-canvas"),
        ("Certificate", ".in-start"),
        ("Blocks", ".flow"),
    ):
        control(page, "view").get_by_role("radio", name=title).click()
        expect(page.locator(locator)).to_be_visible(timeout=60_000)
    page.locator("main").focus()
    page.keyboard.press("3")
    expect(page).to_have_url(re.compile("view=attention"))
    control(page, "view").get_by_role("radio", name="Blocks").click()
    control(page, "run").select_option("runs/old")
    expect(page).to_have_url(re.compile("run=runs%2Fold"))
    expect(control(page, "block")).to_have_count(
        3 + 8 * cllm.load(studio.workspace / "runs" / "old").config.model.layers
    )
    control(page, "checkpoint").select_option("step-00000003")
    expect(page).to_have_url(re.compile("checkpoint=step-00000003"))
    expect(page.locator(".flow")).to_be_visible()
    page.reload()
    expect(control(page, "checkpoint")).to_have_value("step-00000003")


@covers("tensor", "sort")
def test_tensors_are_measured_and_sorted(page: Any, studio: Any, folder: str) -> None:
    show(page, studio, "tensors")
    rows = page.locator(".tensors tbody tr")
    all_of = list(inside_tensors.tensors(folder, "latest"))
    expect(rows).to_have_count(len(all_of))
    names = lambda: control(page, "tensor").all_text_contents()  # noqa: E731
    assert names() == [one["name"] for one in all_of]
    for key in ("norm", "std", "max"):
        place = ["entries", "norm", "rms", "mean", "std", "min", "max"].index(key) + 2
        shown = [rows.nth(i).locator("td").nth(place).inner_text() for i in range(len(all_of))]
        for text, one in zip(shown, all_of, strict=True):
            assert abs(number(text) - one[key]) <= 6e-3 * abs(one[key])
    head = page.locator(".tensors thead").get_by_role("button", name="norm", exact=True)
    head.click()
    assert names() == [one["name"] for one in sorted(all_of, key=lambda one: -one["norm"])]
    expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    page.locator("th[aria-sort] button").click()
    assert names() == [one["name"] for one in sorted(all_of, key=lambda one: one["norm"])]
    page.locator("th[aria-sort] button").click()
    assert names() == [one["name"] for one in all_of]
    control(page, "tensor").get_by_text("1.attn.wk", exact=True).click()
    side = page.get_by_label("One tensor")
    expect(side).to_contain_text("32 × 32 = 1,024")
    of = inside_tensors.tensor(folder, "latest", "1.attn.wk")
    assert same(figures(page, side)["std"], of["std"])
    expect(page).to_have_url(re.compile("tensor=1.attn.wk"))


@covers("map", "head", "scale")
def test_attention_tells_each_weight(page: Any, studio: Any, folder: str) -> None:
    show(page, studio, "attention", head="0.1")
    expect(page.locator("canvas[data-key]")).to_be_visible(timeout=60_000)
    import numpy as np

    def expected(layer: int, head: int) -> Any:
        raw = inside_trace.attention(folder, "latest", TEXT, layer, head)
        return np.frombuffer(raw, "<f4").reshape(len(TEXT), len(TEXT))

    a = expected(0, 1)
    box = control(page, "map").bounding_box()
    each = box["width"] / len(TEXT)
    for query, key in ((9, 4), (14, 14), (6, 0)):
        page.mouse.move(box["x"] + each * (key + 0.5), box["y"] + each * (query + 0.5))
        expect(page.locator(".map-said")).to_contain_text(f"at {query} →")
        shown = page.locator(".map-said [data-weight]")
        assert float(shown.get_attribute("data-weight")) == float(a[query, key])
        assert same(shown.inner_text(), float(a[query, key]))
    page.mouse.move(box["x"] + each * 12.5, box["y"] + each * 3.5)
    expect(page.locator(".map-said")).to_contain_text("hidden by the causal mask")
    # the keyboard moves the cell; the largest weights of the query are listed
    control(page, "map").focus()
    page.mouse.move(0, 0)
    for key in ("ArrowDown",) * 4 + ("ArrowLeft",) * 9:
        page.keyboard.press(key)
    expect(page.locator(".map-said [data-weight]")).to_have_attribute("data-weight", re.compile(r"^0\.\d+"))
    assert float(page.locator(".map-said [data-weight]").get_attribute("data-weight")) == float(a[7, 3])
    bars = page.get_by_label("Where the chosen token looks").locator("li")
    order = sorted(range(8), key=lambda i: -float(a[7, i]))[:6]
    assert [int(bars.nth(k).locator(".quiet").inner_text()) for k in range(6)] == order
    # shades: √ of the weight, or the weight
    pixel = "(c, [q, k]) => [...c.getContext('2d').getImageData(k, q, 1, 1).data]"
    root = control(page, "map").evaluate(pixel, [9, 4])
    control(page, "scale").get_by_role("radio", name="weight", exact=True).click()
    serving.until(lambda: control(page, "map").evaluate(pixel, [9, 4]) != root)
    control(page, "scale").get_by_role("radio", name="of the row").click()
    largest = [9, int(a[9].argmax())]  # in the brightest shade, the ramp's last
    serving.until(lambda: control(page, "map").evaluate(pixel, largest)[:3] == [255, 205, 92])
    # another head
    expect(control(page, "head")).to_have_count(4)
    control(page, "head").nth(3).click()
    expect(page.locator(".map-tools h2")).to_have_text("Layer 1, head 1")
    expect(page).to_have_url(re.compile("head=1.1"))
    wanted = float(expected(1, 1)[7, 3])
    assert wanted != float(a[7, 3])
    serving.until(lambda: float(page.locator(".map-said [data-weight]").get_attribute("data-weight")) == wanted)


def test_the_document_mask_is_seen(page: Any, studio: Any) -> None:
    show(page, studio, "attention", run="runs/masked", text="The<eos>sea")
    expect(page.locator("canvas[data-key]")).to_be_visible(timeout=60_000)
    expect(page.locator(".text-facts")).to_contain_text("attention stays within one")
    box = control(page, "map").bounding_box()
    each = box["width"] / 7
    page.mouse.move(box["x"] + each * 1.5, box["y"] + each * 5.5)
    expect(page.locator(".map-said")).to_contain_text("another document: hidden by the document mask")
    page.mouse.move(box["x"] + each * 4.5, box["y"] + each * 4.5)
    expect(page.locator(".map-said [data-weight]")).to_have_attribute("data-weight", "1")


@covers("lens", "tint")
def test_the_lens_shows_each_layer(page: Any, studio: Any, folder: str) -> None:
    show(page, studio, "lens")
    lines = list(inside_trace.lens(folder, "latest", TEXT))
    rows = page.locator(".lens-row")
    expect(rows).to_have_count(4, timeout=60_000)
    names = {key: value for line in lines for key, value in line["texts"].items()}
    for row, line in enumerate(lines):
        shown = rows.nth(row).locator("[data-cell]").evaluate_all("all => all.map(e => e.firstChild.data)")
        assert shown == [names[str(top[0])].replace("\n", "↵").replace(" ", "·") for top in line["top"]]
    page.locator("[data-cell='0.5']").click()
    expect(page).to_have_url(re.compile("at=0.5"))
    values = page.locator("[data-p]")
    expect(values.first).to_have_attribute("data-p", str(lines[2]["p"][5][0]))
    assert [float(x) for x in values.evaluate_all("all => all.map(e => e.dataset.p)")] == lines[2]["p"][5]
    assert same(figures(page, page.get_by_label("One place"))["entropy"].split()[0], lines[2]["entropy"][5])
    control(page, "lens").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    expect(values.first).to_have_attribute("data-p", str(lines[0]["p"][6][0]))
    expect(page.locator("#inside-spot")).to_contain_text("the model's output")
    assert int(figures(page, page.get_by_label("One place"))["its place"]) == lines[0]["next"][6][1] + 1
    tints = "all => all.map(e => e.style.getPropertyValue('--tint'))"
    shown = [page.locator("[data-cell]").evaluate_all(tints)]
    assert shown[0][0] == f"{round(42 * lines[0]['p'][0][0])}%"
    for name in ("certainty", "what comes"):
        control(page, "tint").get_by_role("radio", name=name).click()
        serving.until(lambda: page.locator("[data-cell]").evaluate_all(tints) not in shown)
        shown.append(page.locator("[data-cell]").evaluate_all(tints))


@covers("cloud", "cloud-turn", "cloud-in", "cloud-out", "cloud-home", "colour", "equal", "find", "near", "forget")
def test_the_cloud_turns_and_finds(page: Any, studio: Any, folder: str) -> None:
    show(page, studio, "embedding")
    canvas = control(page, "cloud")
    vocab = cllm.load(folder).model.config.vocab
    expect(canvas).to_have_attribute("data-drawn", str(vocab), timeout=60_000)
    picture = lambda: canvas.evaluate("c => c.toDataURL()")  # noqa: E731

    def changes(act: Callable[[], Any]) -> None:
        before = picture()
        act()
        serving.until(lambda: picture() != before)

    for value in ("prime", "frequency", "norm", "class"):
        changes(lambda value=value: control(page, "colour").select_option(value))
        expect(page).to_have_url(re.compile(f"colour={value}"))
    changes(lambda: control(page, "equal").uncheck(force=True))
    expect(page).to_have_url(re.compile("scale=one"))
    changes(lambda: control(page, "equal").check(force=True))
    start = picture()
    for name in ("cloud-in", "cloud-out"):
        changes(control(page, name).click)
    changes(control(page, "cloud-in").click)
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "-"):
        changes(lambda key=key: page.keyboard.press(key))
    changes(control(page, "cloud-home").click)
    serving.until(lambda: picture() == start)
    changes(control(page, "cloud-turn").click)
    expect(control(page, "cloud-turn")).to_have_attribute("aria-pressed", "true")
    control(page, "cloud-home").click()
    expect(control(page, "cloud-turn")).to_have_attribute("aria-pressed", "false")
    # neighbours
    control(page, "find").fill("s")
    control(page, "find").press("Enter")
    expect(canvas).to_have_attribute("data-strokes", "12", timeout=30_000)
    found = inside_cloud.near(folder, "latest", "s")
    cosines = page.locator("[data-cosine]").evaluate_all("all => all.map(e => Number(e.dataset.cosine))")
    assert cosines == [one["cosine"] for one in found["near"]]
    expect(page.get_by_label("The token", exact=True)).to_contain_text(f"#{found['id']}")
    control(page, "near").first.click()
    expect(control(page, "find")).to_have_value(f"#{found['near'][0]['id']}")
    expect(page.get_by_label("The token", exact=True)).to_contain_text(f"#{found['near'][0]['id']}")
    control(page, "forget").click()
    expect(canvas).to_have_attribute("data-strokes", "0")
    # a click on a ball picks its token
    box = canvas.bounding_box()
    for dx, dy in ((x, y) for y in range(-300, 300, 14) for x in range(-300, 300, 14)):
        page.mouse.move(box["x"] + box["width"] / 2 + dx, box["y"] + box["height"] / 2 + dy)
        if page.locator(".cloud-status b").count():
            break
    name = page.locator(".cloud-status b").inner_text()
    page.mouse.down()
    page.mouse.up()
    expect(control(page, "find")).to_have_value("#" + name.rpartition("#")[2])


def test_a_token_that_is_not_there_is_said(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("400")
    show(page, studio, "embedding", token="zebra")
    expect(page.get_by_role("alert")).to_contain_text("no token holds", timeout=60_000)


def test_reduced_motion_turns_once(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio, reduced_motion="reduce") as (page, _):
        show(page, studio, "embedding")
        canvas = control(page, "cloud")
        expect(canvas).to_have_attribute("data-drawn", re.compile(r"\d"), timeout=60_000)
        before = canvas.evaluate("c => c.toDataURL()")
        control(page, "cloud-turn").click()
        serving.until(lambda: canvas.evaluate("c => c.toDataURL()") != before)
        expect(control(page, "cloud-turn")).to_have_attribute("aria-pressed", "false")


@covers("certify", "tokens", "steps", "file")
def test_certificates_are_made_and_shown(page: Any, studio: Any) -> None:
    show(page, studio, "certificate")
    expect(page.get_by_text("No certificate of this run yet")).to_be_visible()
    control(page, "tokens").fill("16")
    control(page, "tokens").press("Enter")
    control(page, "steps").uncheck(force=True)
    control(page, "certify").click()
    expect(page.locator("progress")).to_be_visible()
    expect(page.locator(".in-command")).to_contain_text(
        "cllm certify runs/small --checkpoint step-00000002 --tokens 16"
    )
    expect(control(page, "file")).to_have_count(1, timeout=90_000)
    files = list((studio.workspace / "runs" / "small").glob("certificate-*.json"))
    assert len(files) == 1
    held = json.loads(files[0].read_text())
    rows = page.get_by_label("Tensors of the certificate").locator("tbody tr")
    expect(rows).to_have_count(len(held["tensors"]))
    expect(page.locator(".certificate-head")).to_contain_text("certified")
    expect(page.locator(".statement")).to_contain_text(f"sha256 {held['hashes']['weights'][:12]}")
    first = {row["name"]: row for row in held["tensors"]}[rows.nth(0).locator("td").nth(0).inner_text()]
    shown = number(rows.nth(0).locator("td").nth(5).inner_text())
    assert first["normwise"] <= shown <= 1.2 * first["normwise"]  # an upper bound of two digits
    expect(rows.nth(0)).to_contain_text("within")
    # another one, and back to the first
    control(page, "tokens").fill("8")
    control(page, "tokens").press("Enter")
    control(page, "steps").check(force=True)
    control(page, "certify").click()
    expect(control(page, "file")).to_have_count(2, timeout=90_000)
    expect(control(page, "file").first).to_contain_text("8 tokens, float32, AdamW")
    control(page, "file").nth(1).click()
    expect(page).to_have_url(re.compile("file=" + files[0].name))
    expect(page.locator(".certificate-head")).to_contain_text("on 16 tokens")


@covers("stop")
def test_a_certificate_that_is_stopped(page: Any, studio: Any) -> None:
    """Of a model and a text with which it takes a minute: nobody's browser is so slow that it ends by itself before."""
    show(page, studio, "certificate", run="runs/deep")
    control(page, "tokens").fill("2048")
    control(page, "tokens").press("Enter")
    control(page, "certify").click()
    expect(page.locator("progress")).to_be_visible()
    control(page, "stop").click()
    expect(control(page, "certify")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("No certificate of this run yet")).to_be_visible()
    assert list((studio.workspace / "runs" / "deep").glob("certificate-*.json")) == []


@covers("train")
def test_without_a_model_it_says_the_next_step(browser: Any, tmp_path: Path) -> None:
    with harness.start_studio(tmp_path / "empty") as studio, harness.signed_in(browser, studio) as (page, _):
        page.goto(studio.at("inside"))
        control(page, "train").click()
        expect(page.locator("h1")).to_have_text("New run")


@covers("retry")
def test_checkpoints_that_cannot_be_read_are_tried_again(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio) as (page, watch):
        watch.allow("500")
        path = "**/api/generate/checkpoints"
        page.route(path, lambda route: route.fulfill(status=500, body='{"error": "the disk is gone"}'))
        page.goto(studio.at("inside"))
        expect(page.get_by_text("the disk is gone")).to_be_visible()
        page.unroute(path)
        control(page, "retry").click()
        expect(control(page, "view")).to_be_visible()


def test_a_broken_checkpoint_says_why(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("409")
    show(page, studio, "blocks", run="runs/broken")
    expect(page.locator(".text-facts .field-error")).to_contain_text("weights.safetensors", timeout=60_000)
    expect(page.locator(".side .field-error").first).to_contain_text("weights.safetensors")


def test_every_control_has_a_test() -> None:
    """Every name in the screen's source."""
    source = "".join(path.read_text() for path in SOURCE.glob("*.tsx"))
    found = set(re.findall(r"""(?:data-)?control=["{`]+(inside\.[\w-]+)""", source))
    assert found == tested
    assert len(found) >= 30


@pytest.mark.parametrize("view", ["blocks", "tensors", "attention", "lens", "embedding", "certificate"])
def test_controls_have_names_and_narrow_pages_hold_everything(browser: Any, studio: Any, view: str) -> None:
    with harness.signed_in(browser, studio, viewport={"width": 390, "height": 844}, color_scheme="light") as (page, _):
        show(page, studio, view)
        ready = {"blocks": ".side .measured", "tensors": ".tensors tbody tr", "attention": ".head canvas",
                 "lens": ".lens-row", "embedding": "canvas[data-drawn]", "certificate": ".in-start"}  # fmt: skip
        expect(page.locator(ready[view]).first).to_be_visible(timeout=60_000)
        seen = harness.controls(page)
        assert {name for name in seen if name.startswith("inside.")} <= tested
        wide = page.evaluate(
            "[...document.querySelectorAll('.inside *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('.table-frame, .lens-frame, .segmented, .cloud-labels')).map(e => e.outerHTML)"
        )
        assert wide == []
        unnamed = page.evaluate(
            "[...document.querySelectorAll('.inside :is(button, select, input, textarea, [tabindex=\"0\"])')]"
            ".filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.title))"
            ".map(e => e.outerHTML.slice(0, 200))"
        )
        assert unnamed == []
