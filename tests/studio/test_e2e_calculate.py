"""The Calculate screen in Chromium: rows that depend on each other, and every control."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cllm.numbers.expression import evaluate

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[dev]'")
expect = sync_api.expect
harness = sys.modules["browser"]
tested: set[str] = set()


def covers(*names: str) -> Callable[[Any], Any]:
    """These controls are used by the test."""
    tested.update(f"calculate.{name}" for name in names)
    return lambda test: test


def control(page: Any, name: str) -> Any:
    return page.locator(f"[data-control='calculate.{name}']")


def sheet(page: Any, studio: Any, *rows: str, **more: Any) -> Any:
    """Open a sheet with these rows by its link; returns its rows."""
    params = {"rows": json.dumps(rows), **more} if rows else more
    page.goto(studio.at("calculate", **params))
    expect(control(page, "row").first).to_be_visible()
    return page.locator(".sheet-row")


def value(row: Any) -> Any:
    return row.locator("output")


@covers("row", "add", "remove")
def test_rows_use_the_rows_above(page: Any, studio: Any) -> None:
    rows = sheet(page, studio)
    control(page, "row").first.fill("x = sqrt(2)")
    control(page, "row").first.press("Enter")
    expect(value(rows.nth(0))).to_have_text("x = 1.41421356237309504880168872421")
    expect(control(page, "row").nth(1)).to_be_focused()
    page.keyboard.type("x^2 + 1/3")
    page.keyboard.press("Enter")
    expect(value(rows.nth(1))).to_have_text("2.33333333333333333333333333333")
    page.keyboard.type("ans * 3")
    expect(value(rows.nth(2))).to_have_text("7.00000000000000000000000000000")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(control(page, "row").first).to_be_focused()
    control(page, "row").first.fill("x = 2")  # what depends on it follows
    expect(value(rows.nth(1))).to_have_text("4.33333333333333333333333333333")
    expect(value(rows.nth(2))).to_have_text("13")
    control(page, "add").click()
    expect(rows).to_have_count(4)
    control(page, "remove").nth(3).click()
    expect(rows).to_have_count(3)
    control(page, "add").click()
    page.keyboard.press("Backspace")  # in an empty row
    expect(rows).to_have_count(3)


@covers("digits", "more-digits", "expand")
def test_digits(page: Any, studio: Any) -> None:
    rows = sheet(page, studio, "pi")
    control(page, "digits").fill("50")
    control(page, "digits").press("Enter")
    expect(value(rows.first)).to_have_text(evaluate("pi", 50).text)
    control(page, "more-digits").click()
    expect(value(rows.first)).to_have_text(evaluate("pi", 500).text)
    control(page, "more-digits").click()
    expect(rows.first).to_contain_text("5000 digits proven")
    expect(value(rows.first)).to_contain_text("…")
    control(page, "expand").click()
    expect(value(rows.first)).to_have_text(evaluate("pi", 5000).text)
    expect(page).to_have_url(re.compile("digits=5000"))
    control(page, "digits").fill("0")
    control(page, "digits").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("From 1 to 20000")


@covers("enclosure")
def test_bounds_and_what_is_not_proven(page: Any, studio: Any) -> None:
    rows = sheet(page, studio, "exp(1)", "sin(pi)", "1/4")
    control(page, "enclosure").check(force=True)
    result = evaluate("exp(1)", 30)
    expect(rows.nth(0)).to_contain_text(f"≥ {result.lower}")
    expect(rows.nth(0)).to_contain_text(f"≤ {result.upper}")
    expect(rows.nth(1)).to_contain_text("proven: the value may be 0")
    expect(rows.nth(2)).to_contain_text("exact")
    expect(page).to_have_url(re.compile("enclosure=1"))


def test_errors_stand_below_their_row(page: Any, studio: Any) -> None:
    rows = sheet(page, studio, "1/0", "2 * foo(3)", "a + 1", "7")
    expect(rows.nth(0).get_by_role("alert")).to_contain_text("division by 0")
    expect(rows.nth(1).locator("mark")).to_have_text("foo")
    expect(rows.nth(2).get_by_role("alert")).to_contain_text("unknown name")
    expect(value(rows.nth(3))).to_have_text("7")


def test_what_takes_too_long_is_stopped(page: Any, studio: Any, watch: Any) -> None:
    """A row without an answer in time says so, and the sheet goes on."""
    watch.allow("status of 422")
    rows = sheet(page, studio, "7 * 6", "factor(next_prime(10^44)*next_prime(3*10^44))")
    expect(value(rows.nth(0))).to_have_text("42")
    expect(rows.nth(1)).to_contain_text("Working")
    expect(rows.nth(1).get_by_role("alert")).to_contain_text(re.compile("longer than|allowed"), timeout=40_000)
    control(page, "row").nth(1).fill("ans + 1")
    expect(value(rows.nth(1))).to_have_text("43")


@covers("lattice", "factor", "base60", "copy")
def test_actions_of_a_row(page: Any, studio: Any) -> None:
    rows = sheet(page, studio, "n = 144001")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    control(page, "copy").first.click()
    expect(page.get_by_label("Messages")).to_contain_text("in the clipboard")
    assert page.evaluate("() => navigator.clipboard.readText()") == "144001"
    control(page, "factor").first.click()
    expect(control(page, "row").nth(1)).to_have_value("factor(n)")
    expect(value(rows.nth(1))).to_have_text("11 · 13 · 19 · 53")
    control(page, "base60").first.click()
    expect(control(page, "row").nth(1)).to_have_value("base60(n, 10)")
    expect(value(rows.nth(1))).to_have_text("40,0,1")
    control(page, "lattice").first.click()
    expect(page.locator("[data-control='lattice.jump']")).to_have_value("144001")
    expect(page.locator(".inspector-n")).to_have_text("144\u202f001")


@covers("certificate", "certificate-copy", "certificate-dialog-close")
def test_the_certificate_of_factors(page: Any, studio: Any) -> None:
    sheet(page, studio, "2^101 - 1", "factor(91)")
    expect(control(page, "certificate")).to_have_count(2)
    control(page, "certificate").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("7432339208719 · 341117531003194129")
    expect(dialog.get_by_role("row").last).to_contain_text("341117531003194129")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    control(page, "certificate-copy").click()
    expect(page.get_by_label("Messages")).to_contain_text("in the clipboard")
    assert page.evaluate("() => navigator.clipboard.readText()").startswith("from math import prod")
    control(page, "certificate-dialog-close").click()
    expect(dialog).to_be_hidden()
    control(page, "certificate").nth(1).click()
    expect(dialog).to_contain_text("91 = 7 · 13")


@covers("functions", "search", "function", "functions-dialog-close")
def test_the_list_of_functions(page: Any, studio: Any) -> None:
    sheet(page, studio)
    control(page, "functions").click()
    control(page, "search").fill("totient")
    expect(control(page, "function")).to_have_count(1)
    control(page, "function").click()
    expect(control(page, "row").first).to_have_value("totient(")
    page.keyboard.type("100)")
    expect(value(page.locator(".sheet-row").first)).to_have_text("40")
    control(page, "functions").click()
    control(page, "functions-dialog-close").click()
    expect(control(page, "search")).to_be_hidden()


@covers("suggestion")
def test_names_are_completed(page: Any, studio: Any) -> None:
    sheet(page, studio)
    control(page, "row").first.focus()
    page.keyboard.type("next_")
    expect(control(page, "suggestion")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(control(page, "row").first).to_have_value("next_prime(")
    page.keyboard.type("100) + mo")
    control(page, "suggestion").first.click()
    expect(control(page, "row").first).to_have_value(re.compile(r"next_prime\(100\) \+ mo\w+\("))


@covers("example", "clear", "copy-all")
def test_an_empty_sheet_says_the_next_step(page: Any, studio: Any) -> None:
    rows = sheet(page, studio)
    examples = control(page, "example")
    expect(examples).to_have_count(8)
    texts = [examples.nth(i).locator(".mono").inner_text() for i in range(examples.count())]
    examples.first.click()
    expect(value(rows.first)).to_have_text(evaluate(texts[0], 30).text)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    control(page, "copy-all").click()
    expect(page.get_by_label("Messages")).to_contain_text("in the clipboard")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == f"{texts[0]}\n  = {evaluate(texts[0], 30).text}"
    control(page, "clear").click()
    expect(examples.first).to_be_visible()
    expect(page).not_to_have_url(re.compile("rows="))


def test_every_example_has_a_value(page: Any, studio: Any) -> None:
    rows = sheet(page, studio)
    examples = control(page, "example")
    expect(examples).to_have_count(8)
    texts = [examples.nth(i).locator(".mono").inner_text() for i in range(examples.count())]
    rows = sheet(page, studio, *texts)
    for i, text in enumerate(texts):
        expect(value(rows.nth(i))).to_contain_text(evaluate(text, 30).text)


def test_a_link_brings_the_sheet_back(page: Any, studio: Any) -> None:
    rows = sheet(page, studio, "a = 5", "a!", digits=12)
    expect(value(rows.nth(1))).to_have_text("120")
    address = page.url
    page.goto(studio.at("lattice"))
    page.goto(address)
    expect(value(rows.nth(1))).to_have_text("120")
    expect(control(page, "digits")).to_have_value("12")


def test_every_control_has_a_test(page: Any, studio: Any) -> None:
    met: set[str] = set()
    sheet(page, studio)
    met |= harness.controls(page)
    rows = sheet(page, studio, "sqrt(2)", "12", "1/3", "factor(12)", digits=2000)
    expect(value(rows.nth(3))).to_be_visible()
    expect(control(page, "expand").first).to_be_visible()
    met |= harness.controls(page)
    control(page, "row").first.fill("mod")
    expect(control(page, "suggestion").first).to_be_visible()
    met |= harness.controls(page)
    control(page, "functions").click()
    met |= harness.controls(page)
    page.keyboard.press("Escape")
    control(page, "certificate").first.click()
    expect(control(page, "certificate-copy")).to_be_visible()
    met |= harness.controls(page)
    mine = {name for name in met if name.startswith("calculate.")}
    assert len(mine) >= 18
    assert mine <= tested, sorted(mine - tested)
