"""Pictures of the studio's screens, dark and light: `python docs/screenshots.py` writes docs/screenshots/*.webp.

A real workspace is made first: a model trained on Shakespeare for a minute, a small one beside it, certificates of
both, the measurements of benchmarks/ and the studies of docs/studies. A third training runs while its picture is taken.

    python docs/screenshots.py                        # everything, in a few minutes
    python docs/screenshots.py --workspace W          # keep the workspace W, or use it again
    python docs/screenshots.py --only lattice,bench   # these screens
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SIZE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
LIMIT = 200_000  # bytes of a picture
FLAGS = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--hide-scrollbars"]
MAIN, OTHER, LIVE = "runs/shakespeare", "runs/nano-fp32", "runs/wider"
PROMPT = "ROMEO.\nO, speak again,"
STUDY = "studies/positions.toml"
WAIT = 60_000  # milliseconds for what has to be calculated


def cllm(*arguments: str) -> None:
    """Run a command of the project."""
    print("cllm", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "cllm", *arguments], check=True, stdout=subprocess.DEVNULL)


def prepare(workspace: Path) -> None:
    """Texts, runs, a certificate, measurements and studies; what is there already stays."""
    workspace.mkdir(parents=True, exist_ok=True)
    demo = str(ROOT / "runs/demo.toml")
    if not (workspace / MAIN).exists():
        cllm("train", "--run", demo, "--set", "train.max_minutes=1", "--out", str(workspace / MAIN), "--quiet")
        (workspace / MAIN / "notes.md").write_text("A minute on two cores. Names and line breaks come first.\n")
    if not (workspace / OTHER).exists():
        exact = ["--preset", "nano", "--set", "train.max_minutes=0.5", "--set", "precision=fp32"]
        cllm("train", "shakespeare", *exact, "--out", str(workspace / OTHER), "--quiet")
    for run in (MAIN, OTHER):
        if not any((workspace / run).glob("cert*")):
            cllm("certify", str(workspace / run), "--tokens", "64", "--step")
    shutil.copytree(ROOT / "benchmarks", workspace / "benchmarks", dirs_exist_ok=True)
    shutil.copytree(ROOT / "docs/studies", workspace / "studies", dirs_exist_ok=True)
    (workspace / "ideas.md").write_text(IDEAS)


IDEAS = """# What to try next

1. Twice the **width** at half the steps: is a minute too short for it?
2. The [mirror study](studies/mirror.toml) once more with four seeds.
3. A certificate of the *last* checkpoint, beside autocast.

| model | parameters | validation loss |
|---|---:|---:|
| small, bf16 | 1.1 M | see `runs/shakespeare` |
| nano, fp32 | 0.1 M | see `runs/nano-fp32` |
"""


@contextmanager
def studio(workspace: Path) -> Iterator[str]:
    """`cllm studio`; its address with the token."""
    command = [sys.executable, "-m", "cllm", "studio", str(workspace), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


class Shots:
    """Takes the pictures of one colour scheme."""

    def __init__(self, browser: Browser, address: str, scheme: str, folder: Path) -> None:
        self.parts, self.scheme, self.folder, self.browser = urlsplit(address), scheme, folder, browser
        self.address = address

    def at(self, screen: str, **params: Any) -> str:
        query = f"?{urlencode(params)}" if params else ""
        return f"{self.parts.scheme}://{self.parts.netloc}/#{screen}{query}"

    def take(self, name: str, act: Callable[[Page], None], size: dict[str, int] = SIZE, **params: Any) -> None:
        """Open a screen, do something there, and write the picture."""
        scale = 2 if size is PHONE else 1
        context = self.browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            color_scheme=self.scheme,  # type: ignore[arg-type]
            device_scale_factor=scale,
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(WAIT)
        try:
            page.goto(self.address)
            page.goto(self.at(name.partition("-")[0], **params))
            act(page)
            picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        finally:
            context.close()
        self.write(name, picture)

    def write(self, name: str, picture: Image.Image) -> None:
        """As WebP, with the best quality that is small enough."""
        for quality in (90, 82, 74, 66):
            found = io.BytesIO()
            picture.save(found, "WEBP", quality=quality, method=6)
            if found.tell() < LIMIT:
                break
        path = self.folder / f"{name}-{self.scheme}.webp"
        path.write_bytes(found.getvalue())
        print(f"{path.name}: {found.tell() / 1000:.0f} kB, quality {quality}", flush=True)


def control(page: Page, name: str) -> Any:
    return page.locator(f"[data-control='{name}']")


def settled(page: Page) -> None:
    """The Lattice screen, when every tile is there."""
    expect(page.locator(".lattice")).to_have_attribute("aria-busy", "false")
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r())))")
    for canvas in ("lattice.canvas", "lattice.null-canvas"):
        if control(page, canvas).count():
            expect(control(page, canvas)).to_have_attribute("data-waiting", "0")


def lattice(page: Page) -> None:
    expect(page.locator(".inspector-n")).to_be_visible()
    expect(page.locator(".line-facts")).to_be_visible()
    settled(page)


def space(page: Page) -> None:
    expect(control(page, "lattice.space-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    settled(page)


ROWS = ("a = 2^127 - 1", "factor(a^2 - 1)", "sqrt(2)^ln(3)", "modpow(3, 10^18, a)", "base60(sqrt(2), 6)")


def calculate(page: Page) -> None:
    expect(page.locator(".sheet-row output")).to_have_count(len(ROWS))


def train(page: Page) -> None:
    expect(page.locator(".curves-frame canvas")).to_be_visible()
    expect(page.locator(".curves-small canvas").nth(2)).to_be_attached()


def new_run(page: Page) -> None:
    page.locator(".text-row").filter(has_text="shakespeare").first.get_by_role("checkbox").check()
    expect(page.locator(".plan-big").first).not_to_have_text("–")
    expect(page.locator(".preview-text")).to_contain_text(re.compile(r"\w"))


def generate(page: Page) -> None:
    control(page, "generate.prompt").fill(PROMPT)
    control(page, "generate.max-tokens").fill("110")
    control(page, "generate.seed").fill("7")
    control(page, "generate.seed").press("Enter")
    control(page, "generate.write").click()
    expect(control(page, "generate.continue")).to_be_visible()
    expect(page.locator(".next-list li").first).to_be_visible()
    page.locator(".writing").evaluate("e => { e.scrollTop = 0; }")
    # the token farthest to the right in the upper part: its list leaves the rest of the text free
    place = page.locator("[data-place]").evaluate_all(
        """all => all.map(e => [e.getBoundingClientRect(), e.dataset.place])
                      .filter(([r]) => r.top < 430 && r.width > 12)
                      .sort(([a], [b]) => b.left - a.left)[0][1]"""
    )
    page.locator(f"[data-place='{place}']").hover()
    expect(page.locator(".alternatives")).to_be_visible()


def inside(page: Page) -> None:
    expect(page.locator(".inside canvas, .inside svg").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def certificate(page: Page) -> None:
    expect(page.locator(".inside table").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def bench(page: Page) -> None:
    expect(page.locator(".bench table").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def study(page: Page) -> None:
    expect(page.locator(".bench svg").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def screens(shots: Shots) -> dict[str, Callable[[], None]]:
    """Every picture but those of the running training."""
    ulam = {"start": 41, "w": 130, "n": 1847, "line": "1 1 41"}
    return {
        "lattice": lambda: shots.take("lattice", lattice, **ulam),
        "lattice-space": lambda: shots.take("lattice-space", space, curve="space", space="FCC", reach=2),
        "calculate": lambda: shots.take("calculate", calculate, rows=json_of(ROWS)),
        "train-new": lambda: shots.take("train-new", new_run, new=1),
        "generate": lambda: shots.take("generate", generate, run=MAIN),
        "inside": lambda: shots.take("inside", inside, run=MAIN),
        "inside-attention": lambda: shots.take("inside-attention", inside, run=MAIN, view="attention", head="2.1"),
        "inside-certificate": lambda: shots.take("inside-certificate", certificate, run=OTHER, view="certificate"),
        "bench": lambda: shots.take("bench", bench, part="measure", table="train-step-seed-b8-t256"),
        "bench-study": lambda: shots.take("bench-study", study, part="studies", study=STUDY, folder=STUDY[:-5]),
    }


def json_of(rows: tuple[str, ...]) -> str:
    import json

    return json.dumps(rows)


def running(shots: list[Shots], workspace: Path) -> None:
    """Train, on a page and on a phone, while a training is under way."""
    shutil.rmtree(workspace / LIVE, ignore_errors=True)
    first = shots[0]
    page = first.browser.new_page()
    page.set_default_timeout(WAIT)
    page.goto(first.address)
    started = page.evaluate(
        """async body => (await fetch("/api/train/start", {method: "POST",
             headers: {"content-type": "application/json"}, body: JSON.stringify(body)})).status""",
        {
            "name": LIVE.removeprefix("runs/"),
            "data": ["shakespeare"],
            "preset": "small",
            "settings": {
                "train.max_minutes": 2.5, "data.vocab_size": 2000, "model.width": 192, "model.ff": 768,
                "train.batch": 8, "train.sequence": 128, "optim.lr": 3e-3, "train.sample_every": 100,
            },
        },
    )  # fmt: skip
    assert started == 200, started
    page.goto(first.at("train", run=LIVE))
    bar = page.locator(".view-bar")
    expect(bar).to_be_visible()
    while float(bar.get_attribute("value") or 0) < 0.45 * float(bar.get_attribute("max") or 1):
        page.wait_for_timeout(500)
    page.close()
    try:
        for shot in shots:
            shot.take("train", train, run=LIVE, **{"with": MAIN})
            shot.take("train-phone", train, PHONE, run=LIVE)
    finally:
        page = first.browser.new_page()
        page.goto(first.address)
        page.goto(first.at("train", run=LIVE))
        control(page, "train.stop").click()
        expect(page.locator(".view-words b")).to_have_text("stopped", timeout=WAIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/screenshots")
    parser.add_argument("--only", default="")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    asked = parser.parse_args()
    only = set(filter(None, asked.only.split(",")))
    workspace = asked.workspace or Path(tempfile.mkdtemp()) / "crystals"
    prepare(workspace)
    asked.out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=WAIT)
    with studio(workspace) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=FLAGS)
        shots = [Shots(browser, address, scheme, asked.out) for scheme in ("dark", "light")]
        for shot in shots:
            for name, take in screens(shot).items():
                if not only or name in only:
                    take()
        if not only or "train" in only:
            running(shots, workspace)
        browser.close()


if __name__ == "__main__":
    main()
