"""The frame around the screens: navigation, palette, theme, shortcuts, messages, addresses."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness = sys.modules["browser"]
SCREENS = ("lattice", "calculate", "train", "generate", "inside", "bench")


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='shell.{name}']")


def test_every_screen_opens_from_the_navigation(page: Any, studio: Any) -> None:
    for k, name in enumerate(SCREENS):
        control(page, name).click()
        expect(control(page, name)).to_have_attribute("aria-current", "page")
        expect(page).to_have_url(re.compile(f"#{name}"))
        expect(page.locator("main > *").first).to_be_visible()
        page.keyboard.press(f"Alt+{(k + 1) % 6 + 1}")
        expect(page).to_have_url(re.compile(f"#{SCREENS[(k + 1) % 6]}"))


def test_the_palette(page: Any, studio: Any) -> None:
    page.goto(studio.at("calculate"))
    control(page, "palette").click()
    field = control(page, "palette-input")
    field.fill("sacks")  # commands of the open screen and of the frame alone
    expect(page.locator(".palette [role=option]")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()
    page.keyboard.press("Control+k")
    field.fill("latt")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#lattice"))
    page.keyboard.press("Control+k")
    field.fill("sacks")
    expect(page.locator(".palette [role=option]")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("[data-control='lattice.curve']")).to_have_value("sacks")
    page.keyboard.press("Control+k")
    field.fill("no such thing")
    expect(page.get_by_role("dialog")).to_contain_text("Nothing of that name")
    page.keyboard.press("Control+k")
    expect(field).to_be_hidden()


def test_the_theme_follows_the_system_until_it_is_set(browser: Any, studio: Any) -> None:
    with harness.signed_in(browser, studio, color_scheme="light") as (page, _):
        html = page.locator("html")
        expect(html).to_have_attribute("data-theme", "light")
        page.emulate_media(color_scheme="dark")
        expect(html).to_have_attribute("data-theme", "dark")
        control(page, "theme").click()
        expect(html).to_have_attribute("data-theme", "light")
        page.reload()
        expect(html).to_have_attribute("data-theme", "light")
        control(page, "theme").click()
        expect(html).to_have_attribute("data-theme", "dark")
        control(page, "theme").click()
        page.emulate_media(color_scheme="light")
        expect(html).to_have_attribute("data-theme", "light")


def test_shortcuts_are_listed(page: Any, studio: Any) -> None:
    page.goto(studio.at("lattice"))
    expect(page.locator("[data-control='lattice.curve']")).to_be_visible()
    page.locator("main").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Next prime")
    control(page, "shortcuts-close").click()
    expect(dialog).to_be_hidden()


def test_the_keyboard_alone_suffices(page: Any, studio: Any) -> None:
    """Tab reaches the skip link first, then every control; the focus can be seen on each."""
    page.goto(studio.at("lattice"))
    expect(page.locator("[data-control='lattice.curve']")).to_be_visible()
    page.locator("body").press("Tab")
    expect(control(page, "skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, shown = page.evaluate(
            """() => { const e = document.activeElement; const s = getComputedStyle(e);
                 const near = e.closest("[data-control]");
                 const track = e.nextElementSibling && getComputedStyle(e.nextElementSibling);
                 const ring = (x) => x && x.outlineStyle !== "none" && parseFloat(x.outlineWidth) >= 2;
                 return [near && near.dataset.control, ring(s) || ring(track)]; }"""
        )
        if name is None:
            break
        assert shown, f"the focus cannot be seen on {name}"
        reached.add(name)
    wanted = {"curve", "start", "labels", "colour", "null", "line-a", "png", "link", "canvas", "zoom-in", "jump"}
    assert {f"lattice.{name}" for name in wanted} <= reached


def test_an_unknown_screen_says_so(page: Any, studio: Any) -> None:
    page.goto(studio.at("nowhere"))
    expect(page.locator("main")).to_contain_text("no screen called")


def test_messages_can_be_dismissed(page: Any, studio: Any, watch: Any) -> None:
    watch.allow("status of 400")
    page.goto(studio.at("lattice", curve="nonsense"))
    messages = page.get_by_label("Messages")
    expect(messages).to_contain_text("unknown curve")
    control(page, "toast-close").first.click()
    expect(messages).not_to_contain_text("unknown curve")


def test_the_connection_is_shown_and_made_again(page: Any, studio: Any) -> None:
    expect(page.get_by_role("status").first).to_contain_text("Connected")


def test_every_control_of_the_frame_has_a_test(page: Any, studio: Any) -> None:
    tested = {*SCREENS, "palette", "palette-input", "theme", "skip", "shortcuts-close", "toast-close"}
    met = {name for name in harness.controls(page) if name.startswith("shell.")}
    page.keyboard.press("Control+k")
    met |= {name for name in harness.controls(page) if name.startswith("shell.")}
    assert met <= {f"shell.{name}" for name in tested}, met
    assert len(met) >= 9


@pytest.mark.parametrize("screen", SCREENS)
def test_a_phone_shows_where_one_is(browser: Any, studio: Any, screen: str) -> None:
    """390 pixels: the open screen's name stands in the bar whole, and nothing is wider than the page."""
    with harness.signed_in(browser, studio, viewport={"width": 390, "height": 844}, has_touch=True) as (page, _):
        page.goto(studio.at(screen))
        expect(control(page, screen)).to_have_attribute("aria-current", "page")
        expect(page.locator("main > *").first).to_be_visible()
        inside = control(page, screen).evaluate(
            """e => { const a = e.getBoundingClientRect(), b = e.parentElement.getBoundingClientRect();
                      return [a.left >= b.left - 1, a.right <= b.right + 1, b.right <= innerWidth]; }"""
        )
        assert inside == [True, True, True]
        for part in ("html", "main"):
            assert page.locator(part).evaluate("e => e.scrollWidth") == 390


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_is_cut_off_at_1280_by_800(browser: Any, studio: Any, screen: str, scheme: str) -> None:
    with harness.signed_in(browser, studio, color_scheme=scheme) as (page, _):
        page.goto(studio.at(screen))
        expect(page.locator("main > *").first).to_be_visible()
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 1280
