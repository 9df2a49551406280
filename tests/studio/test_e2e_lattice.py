"""The Lattice screen in Chromium: every control does what it says, and the pixels are the numbers'."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from cllm.lattice import ulam_inverse
from cllm.studio import lattice_values as values

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness = sys.modules["browser"]
tested: set[str] = set()


def covers(*names: str) -> Callable[[Any], Any]:
    """These controls are used by the test."""
    tested.update(names)
    return lambda test: test


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='{name}']")


def settled(page: Any) -> None:
    """Nothing is on the way: no question, no glide; and what they changed has been drawn with all its tiles."""
    expect(page.locator(".lattice")).to_have_attribute("aria-busy", "false", timeout=40_000)
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r())))")
    for canvas in ("lattice.canvas", "lattice.null-canvas"):
        found = control(page, canvas)
        if found.count():
            expect(found).to_have_attribute("data-waiting", "0", timeout=40_000)


def show(page: Any, studio: Any, **params: Any) -> None:
    """Open a picture by its link; it is there when this returns."""
    address = studio.at("lattice", **params)
    page.goto(address)
    expect(page.locator(".lattice")).to_have_attribute("data-link", address[address.index("#") :])
    settled(page)


def pixels(page: Any, name: str = "lattice.canvas") -> np.ndarray:
    """The canvas as uint8 [height, width, 3]."""
    width, height, data = control(page, name).evaluate(
        """c => { const g = c.getContext("2d"); const d = g.getImageData(0, 0, c.width, c.height).data;
                  let s = ""; for (let i = 0; i < d.length; i += 32768)
                    s += String.fromCharCode(...d.subarray(i, i + 32768));
                  return [c.width, c.height, btoa(s)]; }"""
    )
    import base64

    return np.frombuffer(base64.b64decode(data), dtype=np.uint8).reshape(height, width, 4)[..., :3]


def fill(page: Any, name: str, text: str) -> None:
    field = control(page, name)
    field.fill(text)
    field.press("Enter")


def link(page: Any, **expected: str) -> None:
    """The address holds these settings, a moment later."""
    from urllib.parse import quote_plus

    for key, value in expected.items():
        expect(page).to_have_url(re.compile(rf"[?&]{key}={re.escape(quote_plus(value))}(&|$)"))


@covers("lattice.canvas", "shell.lattice")
def test_the_pixels_are_the_primes(page: Any, studio: Any) -> None:
    """The middle of every cell in view against the map and the sieve, in the page's own canvas."""
    show(page, studio, w=120, labels=0)
    image = pixels(page)
    height, width = image.shape[:2]
    cell = width / 120
    checked = 0
    for b in range(-30, 30):
        for a in range(-50, 50):
            px, py = width / 2 + (a + 0.5) * cell, height / 2 - (b + 0.5) * cell
            shown = tuple(image[int(py), int(px)]) == (255, 205, 92)
            assert shown == bool(values.are_prime(np.array([ulam_inverse(a, b)]))[0]), (a, b)
            checked += 1
    assert checked == 6000


def test_far_out_the_pixels_are_the_primes_too(page: Any, studio: Any) -> None:
    show(page, studio, x=400_000, y=300_000, w=100, labels=0)
    image = pixels(page)
    height, width = image.shape[:2]
    cell = width / 100
    grid = [(a, b) for a in range(400_000 - 40, 400_000 + 40) for b in range(300_000 - 25, 300_000 + 25)]
    prime = values.are_prime(np.array([ulam_inverse(a, b) for a, b in grid]))
    assert 0.02 < prime.mean() < 0.06
    for (a, b), expected in zip(grid, prime, strict=True):
        px, py = width / 2 + (a - 400_000 + 0.5) * cell, height / 2 - (b - 300_000 + 0.5) * cell
        assert (tuple(image[int(py), int(px)]) == (255, 205, 92)) == bool(expected)


def test_a_late_first_view_does_not_overtake_a_link(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio) as (page, _):
        held: list[Any] = []
        page.route("**/api/lattice/home*", lambda one: held.append(one))
        page.goto(studio.at("lattice", labels=0))
        expect(page.locator(".lattice")).to_have_attribute("data-link", "#lattice?labels=0")
        while not held:
            page.wait_for_timeout(20)  # lets the page go on
        address = studio.at("lattice", x=400_000, y=300_000, w=100, labels=0)
        page.goto(address)
        expect(page.locator(".lattice")).to_have_attribute("data-link", address[address.index("#") :])
        with page.expect_response("**/api/lattice/home*"):
            held[0].continue_()
        page.wait_for_timeout(500)  # a glide would have begun, and the address would have followed it
        settled(page)
        expect(page.locator(".lattice-status")).to_contain_text("100 wide")
        link(page, x="400000", y="300000", w="100")


@covers("lattice.jump", "lattice.next-prime", "lattice.previous-prime", "lattice.less", "lattice.more")
def test_going_to_a_number(page: Any, studio: Any) -> None:
    show(page, studio)
    inspector = page.get_by_label("Number", exact=True)
    fill(page, "lattice.jump", "10^12")
    expect(inspector).to_contain_text("37,607,912,018")
    expect(inspector.locator(".factors")).to_have_text("212 · 512")
    link(page, n="1000000000000")
    control(page, "lattice.previous-prime").click()
    expect(inspector).to_contain_text("999\u202f999\u202f999\u202f989")
    control(page, "lattice.next-prime").click()
    expect(inspector).to_contain_text("1\u202f000\u202f000\u202f000\u202f039")
    fill(page, "lattice.jump", "41")
    expect(inspector).to_contain_text("number 13 of the primes")
    control(page, "lattice.more").click()
    expect(inspector.locator(".inspector-n")).to_have_text("42")
    control(page, "lattice.less").click()
    expect(inspector.locator(".inspector-n")).to_have_text("41")
    page.keyboard.press(".")  # shortcuts work beside the buttons
    expect(inspector.locator(".inspector-n")).to_have_text("43")


@covers("lattice.factor", "lattice.calculate")
def test_a_number_of_any_size(page: Any, studio: Any) -> None:
    show(page, studio)
    inspector = page.get_by_label("Number", exact=True)
    fill(page, "lattice.jump", "2^101 - 1")
    expect(inspector).to_contain_text("31 digits")
    expect(inspector).to_contain_text("Beyond the picture")
    control(page, "lattice.factor").click()
    expect(inspector.locator(".factors")).to_contain_text("7\u202f432\u202f339\u202f208\u202f719")
    control(page, "lattice.calculate").click()
    expect(control(page, "calculate.row").first).to_have_value("2535301200456458802993406410751")


def test_a_far_number_is_brought_so_near_that_it_can_be_seen(page: Any, studio: Any) -> None:
    """On the crystalline map 10^11 has its neighbours a thirty-thousandth away."""
    show(page, studio, curve="crystalline")
    fill(page, "lattice.jump", "100000000003")
    expect(page).to_have_url(re.compile(r"w=0\.00"))
    settled(page)
    image = pixels(page)
    height, width = image.shape[:2]
    assert tuple(image[height // 2, width // 2]) == (255, 205, 92)


def test_a_wrong_number_is_explained(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("status of 400")
    show(page, studio)
    fill(page, "lattice.jump", "41 +")
    expect(page.get_by_label("Number", exact=True).get_by_role("alert")).to_contain_text("expected a number")


def test_clicking_and_hovering(page: Any, studio: Any) -> None:
    show(page, studio, w=40)
    box = control(page, "lattice.canvas").bounding_box()
    cell = box["width"] / 40
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(middle[0] + 3.5 * cell, middle[1] - 1.5 * cell)
    n = ulam_inverse(3, 1)
    expect(page.locator(".lattice-status")).to_contain_text(f"n = {n}")
    page.mouse.click(middle[0] + 3.5 * cell, middle[1] - 1.5 * cell)
    expect(page.locator(".inspector-n")).to_have_text(str(n))


def test_keys_wheel_and_drag_move_the_picture(page: Any, studio: Any) -> None:
    show(page, studio, w=100)
    canvas = control(page, "lattice.canvas")
    canvas.focus()
    before = pixels(page)
    canvas.press("ArrowRight")
    settled(page)
    after = pixels(page)
    assert np.array_equal(before[:, 60:600], after[:, :540])  # moved by sixty pixels, nothing else
    box = canvas.bounding_box()
    x, y = box["x"] + 200, box["y"] + 150
    page.mouse.move(x, y)
    label = page.locator(".lattice-status .mono")
    expect(label).to_contain_text("n = ")
    here = label.inner_text()
    for _ in range(4):
        page.mouse.wheel(0, -120)  # the number below the pointer stays below it
    expect(page.locator(".lattice-status")).not_to_contain_text("100 wide")
    page.mouse.move(x + 1, y)
    page.mouse.move(x, y)
    expect(label).to_have_text(here)
    page.mouse.down()
    page.mouse.move(x + 120, y + 60, steps=4)
    page.mouse.up()
    expect(label).to_have_text(here)  # it went along with the pointer
    canvas.press("Enter")
    expect(page.locator(".inspector-n")).to_be_visible()
    canvas.press("-")
    canvas.press("+")


@covers("lattice.zoom-in", "lattice.zoom-out", "lattice.home")
def test_zoom_buttons(page: Any, studio: Any) -> None:
    show(page, studio, w=100)
    control(page, "lattice.zoom-in").click()
    link(page, w="50")
    control(page, "lattice.zoom-out").click()
    link(page, w="100")
    control(page, "lattice.zoom-out").click()
    link(page, w="200")
    control(page, "lattice.home").click()
    expect(page).to_have_url(re.compile(r"[?&]w=201(\.\d+)?(&|$)"))


@covers("lattice.curve", "lattice.modulus", "lattice.start", "lattice.lap", "lattice.dot", "lattice.labels")
def test_every_curve_is_drawn(page: Any, studio: Any) -> None:
    page.set_viewport_size({"width": 940, "height": 480})
    show(page, studio)
    seen = []
    options = control(page, "lattice.curve").locator("option")
    expect(options).to_have_count(13)
    names = [options.nth(i).get_attribute("value") for i in range(options.count())]
    for name in names:
        if name in ("space", "folded-clock"):
            continue
        control(page, "lattice.curve").select_option(name)
        if name != "ulam":
            link(page, curve=name)
        settled(page)
        image = pixels(page)
        seen.append(image.tobytes())
        assert len(np.unique(image.reshape(-1, 3), axis=0)) >= 2, name
    assert len(set(seen)) == len(seen)
    control(page, "lattice.curve").select_option("wheel")
    settled(page)
    before = pixels(page)
    fill(page, "lattice.modulus", "12")
    link(page, modulus="12")
    settled(page)
    assert not np.array_equal(before, pixels(page))
    control(page, "lattice.curve").select_option("clock-abacus")
    fill(page, "lattice.lap", "3")
    link(page, lap="3")
    control(page, "lattice.dot").fill("2")
    link(page, dot="2")
    control(page, "lattice.curve").select_option("ulam")
    fill(page, "lattice.start", "41")
    link(page, start="41")
    control(page, "lattice.labels").uncheck(force=True)
    link(page, labels="0")


def test_numbers_are_written_where_there_is_room(page: Any, studio: Any) -> None:
    show(page, studio, w=12, labels=0)
    plain = pixels(page)
    control(page, "lattice.labels").check(force=True)
    settled(page)
    assert not np.array_equal(plain, pixels(page))


@covers("lattice.colour", "lattice.residue", "lattice.expression", "lattice.low", "lattice.high", "lattice.value")
def test_colourings(page: Any, studio: Any, watch: Any) -> None:
    show(page, studio, n=12)
    seen = [pixels(page).tobytes()]
    for name in ("Omega", "omega", "mu", "least", "residue", "gap"):
        control(page, "lattice.colour").select_option(name)
        link(page, colour=name)
        settled(page)
        seen.append(pixels(page).tobytes())
    control(page, "lattice.colour").select_option("residue")
    fill(page, "lattice.residue", "7")
    expect(page.locator(".legend li")).to_have_count(7)
    control(page, "lattice.colour").select_option("expression")
    fill(page, "lattice.expression", "n % 10")
    link(page, expression="n % 10", high="9")
    settled(page)
    seen.append(pixels(page).tobytes())
    assert len(set(seen)) == len(seen)
    control(page, "lattice.value").click()
    expect(page.locator(".inspector-value")).to_have_text("2")
    fill(page, "lattice.high", "3")
    fill(page, "lattice.low", "1")
    link(page, low="1", high="3")
    watch.allow("status of 400")
    fill(page, "lattice.expression", "n +")
    expect(page.get_by_role("alert")).to_contain_text("expected a number")


@covers("lattice.null", "lattice.seed", "lattice.seed-next", "lattice.null-canvas")
def test_the_random_model_stands_beside(page: Any, studio: Any) -> None:
    show(page, studio, w=60)
    control(page, "lattice.null").get_by_text("1/ln n", exact=True).click()
    link(page, null="all")
    settled(page)
    primes, chance = pixels(page), pixels(page, "lattice.null-canvas")
    bright = [int((p == (255, 205, 92)).all(-1).sum()) for p in (primes, chance)]
    assert 0.5 < bright[0] / bright[1] < 2
    assert not np.array_equal(primes[:, : chance.shape[1]], chance[:, : primes.shape[1]])
    control(page, "lattice.seed-next").click()
    expect(control(page, "lattice.seed")).to_have_value("2")
    settled(page)
    assert not np.array_equal(chance, pixels(page, "lattice.null-canvas"))
    fill(page, "lattice.seed", "1")
    settled(page)
    assert np.array_equal(chance, pixels(page, "lattice.null-canvas"))
    control(page, "lattice.null").get_by_text("odd", exact=False).click()
    link(page, null="odd")
    control(page, "lattice.null-canvas").focus()
    control(page, "lattice.null-canvas").press("ArrowLeft")  # both panes move
    settled(page)


@covers("lattice.line-a", "lattice.line-b", "lattice.line-c", "lattice.line-show", "lattice.line-clear")
def test_quadratics(page: Any, studio: Any) -> None:
    show(page, studio, start=41, w=60)
    control(page, "lattice.line-show").click()
    facts = page.locator(".line-facts")
    expect(facts).to_contain_text("581 primes among 1,000 values")
    expect(facts).to_contain_text("-163")
    settled(page)
    drawn = pixels(page)
    fill(page, "lattice.line-a", "4")
    fill(page, "lattice.line-b", "2")
    fill(page, "lattice.line-c", "41")
    expect(facts).to_contain_text("4t² + 2t + 41")
    link(page, line="4 2 41")
    control(page, "lattice.line-clear").click()
    expect(facts).to_have_count(0)
    settled(page)
    assert not np.array_equal(drawn, pixels(page))


@covers("lattice.diagonal-up", "lattice.diagonal-down")
def test_the_diagonal_of_a_number(page: Any, studio: Any) -> None:
    show(page, studio, start=41, n=47, w=40)
    control(page, "lattice.diagonal-up").click()
    expect(page.locator(".line-facts")).to_contain_text("4t² + 2t + 41")
    control(page, "lattice.diagonal-down").click()
    expect(page.locator(".line-facts")).not_to_contain_text("4t² + 2t + 41")


@covers(
    "lattice.polar", "lattice.fx", "lattice.fy", "lattice.example", "lattice.first", "lattice.count",
    "lattice.section-curve",
)  # fmt: skip
def test_own_formula(page: Any, studio: Any, watch: Any) -> None:
    show(page, studio, curve="formula")
    before = pixels(page)
    fill(page, "lattice.fx", "n")
    fill(page, "lattice.fy", "gap(n)")
    link(page, fx="n", fy="gap(n)")
    settled(page)
    assert not np.array_equal(before, pixels(page))
    control(page, "lattice.polar").get_by_text("r and θ").click()
    link(page, polar="1")
    control(page, "lattice.example").select_option(label="Gaps, as a graph")
    expect(control(page, "lattice.fy")).to_have_value("gap(n)")
    fill(page, "lattice.first", "100")
    fill(page, "lattice.count", "500")
    link(page, first="100", count="500")
    watch.allow("status of 400")
    fill(page, "lattice.fy", "__import__('os')")
    expect(page.get_by_role("alert")).to_contain_text("unexpected character")
    link(page, fy="gap(n)")
    control(page, "lattice.section-curve").click()
    expect(control(page, "lattice.fx")).to_be_hidden()


@covers("lattice.fold", "lattice.fold-play", "lattice.fold-count")
def test_the_folded_clock_folds(page: Any, studio: Any) -> None:
    show(page, studio, curve="folded-clock", start=0)
    expect(control(page, "lattice.fold-count")).to_have_value("1392")
    flat = pixels(page)
    left_half = slice(0, flat.shape[1] // 2 - 30)
    assert len(np.unique(flat[:, left_half].reshape(-1, 3), axis=0)) > 3
    control(page, "lattice.fold-play").click()
    expect(control(page, "lattice.fold")).to_have_value("2", timeout=20_000)
    settled(page)
    folded = pixels(page)
    assert len(np.unique(folded[:, left_half].reshape(-1, 3), axis=0)) == 1  # nothing is left there
    control(page, "lattice.fold").fill("1")
    link(page, fold="1")
    fill(page, "lattice.fold-count", "464")
    link(page, count="464")


def test_reduced_motion_folds_at_once(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio, reduced_motion="reduce") as (page, _):
        show(page, studio, curve="folded-clock", start=0)
        fold = control(page, "lattice.fold-play").evaluate(
            """button => { button.click();
                 return new Promise(r => requestAnimationFrame(() => requestAnimationFrame(
                   () => r(document.querySelector("[data-control='lattice.fold']").value)))); }"""
        )
        assert fold == "2"  # the animation takes three seconds


def _saved(page: Any, name: str) -> bytes:
    with page.expect_download() as download:
        control(page, name).click()
    return bytes(download.value.path().read_bytes())


@covers("lattice.png", "lattice.svg", "lattice.csv", "lattice.link", "lattice.section-export")
def test_taking_a_picture_along(page: Any, studio: Any) -> None:
    show(page, studio, w=30)
    assert _saved(page, "lattice.png").startswith(b"\x89PNG")
    tree = ElementTree.fromstring(_saved(page, "lattice.svg"))
    assert tree.tag.endswith("svg")
    rows = _saved(page, "lattice.csv").decode().splitlines()
    assert rows[0].startswith("n,x,y,prime")
    assert any(row.startswith("41,") for row in rows)
    control(page, "lattice.section-export").click()
    expect(control(page, "lattice.png")).to_be_hidden()
    control(page, "lattice.section-export").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    control(page, "lattice.link").click()
    expect(page.get_by_label("Messages")).to_contain_text("clipboard")


def test_a_link_brings_the_picture_back(page: Any, studio: Any) -> None:
    show(page, studio, curve="sacks", colour="Omega", x=11.5, y=-3, w=25, n=143)
    expect(page.locator(".inspector-n")).to_have_text("143")
    settled(page)
    first, address = pixels(page), page.url
    assert "token" not in address
    page.goto(studio.at("calculate"))
    page.goto(address)
    expect(page.locator(".inspector-n")).to_have_text("143")
    settled(page)
    assert np.array_equal(first, pixels(page))


@covers(*(f"lattice.place-{name}" for name in (
    "ulam", "sacks", "archimedes", "hilbert", "wheel", "ring-clock", "clock-abacus", "crystalline", "vogel",
    "folded-clock",
)))  # fmt: skip
def test_places_open_their_curves(page: Any, studio: Any) -> None:
    show(page, studio, n=1009)
    places = page.locator("[data-control^='lattice.place-']")
    expect(places.first).to_be_visible()
    names = [places.nth(i).get_attribute("data-control").removeprefix("lattice.place-") for i in range(places.count())]
    assert len(names) == 10
    for name in (*names[1:], names[0]):
        control(page, f"lattice.place-{name}").click()
        expect(control(page, "lattice.curve")).to_have_value(name)
    settled(page)


@covers("lattice.section-colour", "lattice.section-null", "lattice.section-line")
def test_sections_fold(page: Any, studio: Any) -> None:
    show(page, studio)
    for section, inside in (("colour", "colour"), ("null", "null"), ("line", "line-a")):
        expect(control(page, f"lattice.{inside}")).to_be_visible()
        control(page, f"lattice.section-{section}").click()
        expect(control(page, f"lattice.{inside}")).to_be_hidden()


SPACE = ("cubic", "FCC", "BCC", "A2", "E8", "E8-roots", "own")


def other_than(canvas: Any, *before: bytes) -> bytes:
    """The canvas once it is none of the pictures before it, or as it is after forty seconds."""
    expect(canvas.page.locator(".lattice")).to_have_attribute("aria-busy", "false")
    end = time.monotonic() + 40
    while (now := canvas.screenshot()) in before and time.monotonic() < end:
        time.sleep(0.05)
    return now


@covers(
    "lattice.space", "lattice.reach", "lattice.spheres", "lattice.cell", "lattice.vectors", "lattice.space-canvas",
    "lattice.space-in", "lattice.space-out", "lattice.space-home", "lattice.section-space", "lattice.section-show",
    "lattice.basis-1", "lattice.basis-2", "lattice.basis-3", "lattice.row-1", "lattice.row-2", "lattice.row-3",
    "lattice.layer", "lattice.shift",
)  # fmt: skip
@pytest.mark.parametrize("renderer", ["canvas", "webgl2"])
def test_lattices_in_space(browser: Any, studio: Any, renderer: str) -> None:
    with harness.signed_in(browser, studio) as (page, watch):
        if renderer == "canvas":  # a browser without WebGL
            page.add_init_script(
                "const old = HTMLCanvasElement.prototype.getContext;"
                "HTMLCanvasElement.prototype.getContext = function (k, ...a) "
                "{ return k === 'webgl2' ? null : old.call(this, k, ...a); };"
            )
            page.reload()
        show(page, studio, curve="space")
        canvas = control(page, "lattice.space-canvas")
        expect(canvas).to_have_attribute("data-drawn", re.compile(r"\d+"))
        if canvas.get_attribute("data-renderer") != renderer:
            pytest.skip("this Chromium has no WebGL2, which the fallback is for")
        panel = page.get_by_label("Picture").first
        expect(panel).to_contain_text("12, all touch")
        seen = []
        for kind in SPACE:
            control(page, "lattice.space").select_option(kind)
            if kind != "FCC":
                link(page, space=kind)
            seen.append(other_than(canvas, *seen))
        assert len(set(seen)) == len(SPACE)
        fill(page, "lattice.basis-1", "1 0 0")
        fill(page, "lattice.basis-2", "0 1 0")
        fill(page, "lattice.basis-3", "0 0 2")
        expect(panel).to_contain_text("√1 = 1.000000")
        expect(panel).to_contain_text("4, all touch")
        watch.allow("status of 400")
        fill(page, "lattice.basis-3", "2 3 0")
        expect(page.locator(".lattice-status")).to_contain_text("determinant 0")
        control(page, "lattice.space").select_option("E8")
        for name, value in (("row-1", "4"), ("row-2", "5"), ("row-3", "6"), ("layer", "7"), ("shift", "1")):
            fill(page, f"lattice.{name}", value)
        expect(panel).to_contain_text("Height of the layer")
        link(page, rows="4 5 6", layer="7", shift="1")
        control(page, "lattice.space").select_option("FCC")
        expect(page.locator(".lattice-status")).to_contain_text("55 points")
        control(page, "lattice.reach").fill("3")
        expect(page.locator(".lattice-status")).to_contain_text("177 points")
        plain = canvas.screenshot()
        for name in ("spheres", "cell", "vectors"):
            control(page, f"lattice.{name}").uncheck(force=True)
            now = other_than(canvas, plain)
            assert now != plain, name
            plain = now
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 300)
        page.mouse.down()
        page.mouse.move(box["x"] + 380, box["y"] + 330, steps=3)
        page.mouse.up()
        assert other_than(canvas, plain) != plain
        canvas.press("ArrowLeft")
        control(page, "lattice.space-in").click()
        control(page, "lattice.space-out").click()
        control(page, "lattice.space-home").click()
        expect(canvas).to_be_visible()
        control(page, "lattice.section-show").click()
        expect(control(page, "lattice.cell")).to_be_hidden()
        control(page, "lattice.section-space").click()
        expect(control(page, "lattice.reach")).to_be_hidden()


def test_tiles_out_of_view_are_given_up(page: Any, studio: Any) -> None:
    """Jumping about leaves no queue behind: what is seen last is there soon."""
    page.set_viewport_size({"width": 940, "height": 480})
    show(page, studio, colour="Omega", w=100)
    tiles = "**/api/lattice/tile**"
    page.route(tiles, lambda route: None)  # the server is slow: no answer
    for k in range(4):
        with page.expect_event("requestfailed", lambda request: "/api/lattice/tile" in request.url):
            page.goto(studio.at("lattice", colour="Omega", x=20_000 * k + 100_000, y=31_000 * k, w=1500))
            expect(control(page, "lattice.canvas")).not_to_have_attribute("data-waiting", "0")
            control(page, "lattice.canvas").press("Shift+ArrowRight")
            page.goto(studio.at("lattice", colour="Omega", x=-9000 * k - 100_000, w=1500))
    page.unroute(tiles)
    show(page, studio, colour="Omega", w=120)


def test_the_theme_changes_the_picture(page: Any, studio: Any) -> None:
    show(page, studio, w=60)
    dark = pixels(page)
    control(page, "shell.theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    settled(page)
    light = pixels(page)
    assert dark.mean() < 80 < 180 < light.mean()


def test_every_control_has_a_test(page: Any, studio: Any) -> None:
    """All states of the screen are opened; a control that is met and not in a `covers` list fails."""
    met: set[str] = set()
    curves = ("ulam", "sacks", "wheel", "clock-abacus", "folded-clock", "formula", "space")
    states: list[dict[str, Any]] = [{"curve": c, "n": 12} for c in curves]
    states += [{"colour": c, "n": 12, "null": "all", "line": "1 1 41"} for c in ("residue", "expression")]
    states += [{"curve": "space", "space": s} for s in SPACE] + [{"n": 10**40 + 1}]
    for state in states:
        show(page, studio, **state)
        if "n" in state and state.get("curve") != "space":  # points in space are no numbers
            expect(page.locator(".inspector-n")).to_be_visible()
        met |= {name for name in harness.controls(page) if name.startswith("lattice.")}
    assert len(met) > 60
    assert met <= tested, sorted(met - tested)
