"""The studio in a real browser: the built pages, a server with a workspace of its own, Chromium, and a watch on it.

What is missing is said with the one command that installs it, and the test is skipped; under CI=true it fails instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZE = {"width": 1280, "height": 800}
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
]  # fmt: skip
SECONDS = 20.0


def missing(what: str, command: str) -> None:
    """Skip the test and say what to install; under CI nothing may be missing."""
    message = f"{what} is missing; install it with: {command}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def node() -> str:
    """The path of npm."""
    found = shutil.which("npm")
    if found is None or shutil.which("node") is None:
        missing("Node.js (20.19 or newer) with npm", "apt-get install nodejs npm")
    assert found is not None
    return found


def build_pages() -> Path:
    """The built pages, built again when a source is newer; one process at a time."""
    node()
    with (Path(tempfile.gettempdir()) / f"cllm-studio-build-{os.getuid()}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "-s", "studio-bundle"], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"make studio-bundle: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return ROOT / "src" / "cllm" / "studio" / "static"


def chromium() -> str | None:
    """The browser's path; None for Playwright's own."""
    named = os.environ.get("CLLM_CHROMIUM")
    if named:
        return named
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return None


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """A headless Chromium. Its driver keeps an event loop running in this thread while it is open."""
    try:
        from playwright.sync_api import Error, expect, sync_playwright
    except ImportError:
        missing("Playwright", "pip install -c constraints.txt -e '.[dev]'")
        raise
    expect.set_options(timeout=SECONDS * 1000)  # a busy machine is no failure
    with sync_playwright() as playwright:
        path = chromium()
        if path is None and not Path(playwright.chromium.executable_path).exists():
            missing("Chromium", "apt-get install chromium")
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS, headless=True)
        except Error as error:
            pytest.fail(f"Chromium did not start: {error}")
        yield browser
        browser.close()


@dataclass
class Studio:
    """A running server. url: where a tab signs in, with the token."""

    workspace: Path
    url: str
    process: subprocess.Popen[str]

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def at(self, screen: str, **params: Any) -> str:
        """The address of a screen."""
        from urllib.parse import urlencode

        query = urlencode(params)
        return f"{self.origin}/#{screen}{'?' + query if query else ''}"


@contextlib.contextmanager
def start_studio(workspace: Path) -> Iterator[Studio]:
    """`cllm studio` on a free port."""
    build_pages()
    workspace.mkdir(parents=True, exist_ok=True)
    log = workspace.parent / f"{workspace.name}.log"
    command = [sys.executable, "-m", "cllm", "studio", str(workspace), "--port", "0", "--no-browser"]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            if "token=" not in line:
                pytest.fail(f"cllm studio did not start: {line}\n{log.read_text()[-3000:]}")
            yield Studio(workspace, line, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                pytest.fail("cllm studio did not end within 20 seconds of Ctrl-C")
            finally:
                process.stdout.close()


@dataclass
class Watch:
    """What a tab must not do: write errors to its console, throw, or ask another host for anything."""

    origin: str
    problems: list[str] = field(default_factory=list)
    allowed: list[re.Pattern[str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """Console errors that this test provokes on purpose."""
        self.allowed.append(re.compile(pattern))

    def attach(self, page: Any) -> None:
        """Listen to a tab."""
        page.on("console", lambda m: self.note(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: self.note(f"thrown: {error}"))
        page.on("request", lambda request: self.request(request.url))
        page.on("websocket", lambda socket: self.request(socket.url.replace("ws://", "http://")))

    def note(self, text: str) -> None:
        if not any(pattern.search(text) for pattern in self.allowed):
            self.problems.append(text)

    def request(self, url: str) -> None:
        self.requests.append(url)
        if not url.startswith((self.origin + "/", f"blob:{self.origin}/")):
            self.problems.append(f"a request off the host: {url}")

    def check(self) -> None:
        """Fail when anything was noted."""
        assert not self.problems, "\n".join(self.problems)


@contextlib.contextmanager
def signed_in(browser: Any, studio: Studio, **options: Any) -> Iterator[tuple[Any, Watch]]:
    """A new tab with cookies of its own, let in; checked when it closes."""
    context = browser.new_context(**{"viewport": SIZE, "color_scheme": "dark", **options})
    context.set_default_timeout(SECONDS * 1000)
    watch = Watch(studio.origin)
    page = context.new_page()
    watch.attach(page)
    try:
        page.goto(studio.url)
        yield page, watch
        watch.check()
    finally:
        context.close()


def controls(page: Any) -> set[str]:
    """The names of the controls that can be seen now."""
    found = page.locator("[data-control]:visible")
    return set(found.evaluate_all("elements => elements.map(e => e.dataset.control)"))
