"""Fixtures of the studio's tests. The browser's scope is a module: its driver keeps an event loop in this thread."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str) -> ModuleType:
    """A helper module beside the tests (they are imported without packages)."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


harness = _load("browser")
serving = _load("serving")


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running server with an empty workspace."""
    with harness.start_studio(tmp_path_factory.mktemp("studio") / "workspace") as running:
        yield running


@pytest.fixture(scope="module")
def browser(studio: Any) -> Iterator[Any]:
    """Chromium."""
    with harness.open_browser() as opened:
        yield opened


@pytest.fixture
def watched(browser: Any, studio: Any) -> Iterator[tuple[Any, Any]]:
    """A signed-in tab and its watch."""
    with harness.signed_in(browser, studio) as pair:
        yield pair


@pytest.fixture
def page(watched: tuple[Any, Any]) -> Any:
    """A signed-in tab, 1280×800, dark; the test fails on console errors and requests off the host."""
    return watched[0]


@pytest.fixture
def watch(watched: tuple[Any, Any]) -> Any:
    """The watch on `page`."""
    return watched[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running server (no pages needed) whose workspace has a text, two runs with a checkpoint, and a log."""
    workspace = tmp_path_factory.mktemp("server") / "workspace"
    workspace.mkdir()
    serving.add_text(workspace)
    serving.add_run(workspace)
    serving.add_trained(workspace)
    serving.add_log(workspace, "runs/long", 400)
    with serving.started(workspace) as running:
        yield running
    serving.end_jobs(workspace)
