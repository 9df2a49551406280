"""The built pages: types, style, unit tests, size, and nothing that comes from another host."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

harness = sys.modules["browser"]
WEB = harness.ROOT / "web"
LIMIT = 150_000  # bytes of everything that the browser loads, compressed


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built() -> Path:
    folder: Path = harness.build_pages()
    return folder


def test_types_are_right(built: Path) -> None:
    run(harness.node(), "exec", "--", "tsc", "--noEmit")


def test_style_is_clean(built: Path) -> None:
    run(harness.node(), "exec", "--", "biome", "ci", ".")


def test_unit_tests_pass(built: Path) -> None:
    assert "passed" in run(harness.node(), "exec", "--", "vitest", "run")


def test_vectors_are_what_the_maps_say() -> None:
    vectors = harness_load("vectors")
    assert json.loads(vectors.FILE.read_text()) == json.loads(json.dumps(vectors.made())), (
        "run `python tests/studio/vectors.py`"
    )


def harness_load(name: str):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bundle_is_small(built: Path) -> None:
    sizes = {p.name: len(gzip.compress(p.read_bytes(), 6)) for p in built.rglob("*") if p.is_file()}
    assert sizes
    assert sum(sizes.values()) < LIMIT, sizes


def test_the_bundle_names_no_other_host(built: Path) -> None:
    named = re.compile(r"(?:https?:)?//([a-z0-9-]+(?:\.[a-z0-9-]+)+)", re.IGNORECASE)
    harmless = {"www.w3.org"}  # names of XML languages; nothing is loaded from there
    for path in built.rglob("*"):
        if path.suffix in (".js", ".css", ".html", ".svg"):
            found = set(named.findall(path.read_text())) - harmless
            assert not found, (path.name, found)


def test_nothing_is_evaluated_from_text() -> None:
    forbidden = re.compile(r"\beval\(|new Function\(|dangerouslySetInnerHTML|\.innerHTML|\.outerHTML|document\.write")
    for path in (WEB / "src").rglob("*.ts*"):
        assert not forbidden.search(path.read_text()), path


def test_the_docs_show_what_was_measured_and_pictures_that_are_there() -> None:
    """The budgets on docs/studio.md are those of benchmarks/studio.json; its pictures exist and are small."""
    check = [sys.executable, str(harness.ROOT / "docs" / "studio_figures.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("docs/studio.md", "README.md"):
        text = (harness.ROOT / page).read_text()
        named = re.findall(r'(?:src|srcset)="((?:docs/)?screenshots/[^"]+)"', text)
        assert len(named) >= 8
        for name in named:
            path = (harness.ROOT / page).parent / name
            assert path.stat().st_size < 200_000, name
            assert path.read_bytes()[8:12] == b"WEBP"
        assert {n.replace("-light.", "-dark.") for n in named} == {n for n in named if "-dark." in n}


def test_versions_are_pinned_and_no_registry_is_named() -> None:
    lock = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "registry" not in lock
    package = json.loads((WEB / "package.json").read_text())
    for version in (*package["dependencies"].values(), *package["devDependencies"].values()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_contrast_of_the_themes(theme: str) -> None:
    """WCAG 2.2: 4.5 for text on every surface, 3 for the edges of controls and the focus ring."""
    style = (WEB / "src" / "style.css").read_text()
    dark = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6});", style.split(":root[data-theme")[0]))
    light = dict(
        re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6});", style.split(':root[data-theme="light"]')[1].split("}")[0])
    )
    tokens = dark if theme == "dark" else {**dark, **light}
    for surface in ("ground", "panel", "raised"):
        for text in ("text", "quiet", "accent", "cool", "warm", "good"):
            assert contrast(tokens[text], tokens[surface]) >= 4.5, (text, surface)
        for edge in ("line-strong", "focus"):
            assert contrast(tokens[edge], tokens[surface]) >= 3, (edge, surface)
    assert contrast(tokens["accent-ink"], tokens["accent"]) >= 4.5
