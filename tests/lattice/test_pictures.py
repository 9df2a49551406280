"""Pictures say what the numbers are: pixels read back from the file, places of dots, colourings, limits."""

import json
import math
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import sympy
from PIL import Image

from cllm import lattice as lt
from cllm.errors import CorruptError, DomainError, LimitError, MissingExtraError
from cllm.lattice import picture
from cllm.lattice.picture.palette import ACCENT, hexadecimal, rgb, sequential, wheel_colours
from cllm.lattice.picture.scene import Frame

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("start", "count", "size"), [(1, 41 * 41, 300), (41, 900, 200), (10**12, 1000, 128), (1, 301 * 301, 64)]
)
def test_ulam_pixels_from_the_png(tmp_path, start, count, size):
    """Walk the spiral by its definition over the file's pixels and ask sympy about each number."""
    path = tmp_path / "ulam.png"
    scene = picture.scene("ulam", count=count, start=start)
    picture.save(scene, path, size)
    with Image.open(path) as image:
        about = json.loads(image.info["cllm"])
        pixels = np.asarray(image.convert("RGB"))
    cell, side = about["cell"], about["plot"] // about["cell"]
    assert side % 2 == 1 and side * side >= count and cell == max(1, size // side)
    primes, x, y, n = 0, side // 2, side // 2, start
    run, direction, left = 1, 0, 1
    moves, turns = ((1, 0), (0, -1), (-1, 0), (0, 1)), 0
    for _ in range(side * side):
        block = pixels[about["top"] + y * cell :, about["left"] + x * cell :][:cell, :cell].reshape(-1, 3)
        is_prime = sympy.isprime(n)
        assert all((tuple(p) == ACCENT) == is_prime for p in block.tolist()), n
        primes += is_prime
        x, y, n, left = x + moves[direction][0], y + moves[direction][1], n + 1, left - 1
        if left == 0:
            direction, turns = (direction + 1) % 4, turns + 1
            run += turns % 2 == 0
            left = run
    assert primes == lt.prime_count(n - 1) - lt.prime_count(start - 1)
    assert picture.check_primes(path) == side * side


def test_a_false_pixel_is_found(tmp_path):
    path = tmp_path / "ulam.png"
    picture.save(picture.scene("ulam", count=121), path, 110)
    with Image.open(path) as image:
        about, picture_of = json.loads(image.info["cllm"]), image.convert("RGB")
        text = image.info["cllm"]
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("cllm", text)
    corner = (about["left"], about["top"], about["left"] + about["cell"], about["top"] + about["cell"])
    was_prime = picture_of.getpixel(corner[:2]) == ACCENT
    picture_of.paste((0, 0, 0) if was_prime else ACCENT, corner)
    picture_of.save(path, pnginfo=info)
    with pytest.raises(CorruptError, match="which is wrong"):
        picture.check_primes(path)
    picture_of.putpixel(corner[:2], (1, 2, 3))
    picture_of.save(path, pnginfo=info)
    with pytest.raises(CorruptError, match="differ"):
        picture.check_primes(path)
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(CorruptError, match="expected an Ulam"):
        picture.check_primes(path)


def test_hilbert_reads_back(tmp_path):
    path = tmp_path / "hilbert.png"
    picture.save(picture.scene("hilbert", count=1024, start=0), path, 128)
    read = picture.read_cells(path)
    order = np.argsort(read.n)
    assert np.array_equal(read.n[order], np.arange(1024))
    assert np.array_equal((read.colours == ACCENT).all(-1)[order], lt.prime_mask(0, 1024))
    assert picture.check_primes(path) == 1024


def test_svg_ulam_cells():
    scene = picture.scene("ulam", count=31 * 31)
    document = ET.fromstring(picture.svg(scene, 310))
    frame = Frame.of(scene, 310)
    assert json.loads(document.find(SVG + "metadata").text)["cllm"]["map"] == "ulam"
    (path,) = [p for p in document.iter(SVG + "path") if p.get("fill") == hexadecimal(ACCENT)]
    shown = set()
    for piece in path.get("d").split("z")[:-1]:
        place, rest = piece[1:].split("h", 1)
        x, y = (int(v) for v in place.split())
        for column in range(int(rest.split("v")[0]) // frame.cell):
            shown.add(((x - frame.left) // frame.cell + column - 15, 15 - (y - frame.top) // frame.cell))
    expected = {lt.ulam(int(p)) for p in lt.primes_below(31 * 31 + 1)}
    assert shown == expected


@pytest.mark.parametrize("name", [m for m in picture.MAPS if m not in ("ulam", "hilbert")])
def test_every_dot_map(name, tmp_path):
    scene = picture.scene(name, count=400, scheme="gap" if name == "crystalline-prime" else "prime")
    dots = scene.dots
    assert dots.n.size == 400 and np.all(np.hypot(dots.x, dots.y) <= 1 + 1e-9)
    assert np.all(dots.radius > 0)
    if name != "crystalline-prime" and name not in ("torus", "sphere"):
        prime = (dots.colours == ACCENT).all(-1)
        assert np.array_equal(prime, lt.are_prime(dots.n))
    document = ET.fromstring(picture.svg(scene, 400))
    frame = Frame.of(scene, 400)
    groups = [g for g in document.iter(SVG + "g") if (g.get("fill") or "").startswith("#")]
    found = sorted((float(c.get("cx")), float(c.get("cy"))) for g in groups for c in g.iter(SVG + "circle"))
    x, y = frame.place(scene, dots.x, dots.y)
    expected = sorted(zip(np.round(x, 2).tolist(), np.round(y, 2).tolist(), strict=True))
    assert len(found) == 400 and np.allclose(np.sort(found, axis=0), np.sort(expected, axis=0), rtol=0, atol=0.011)
    path = tmp_path / "map.png"
    picture.save(scene, path, 200)
    with Image.open(path) as image:
        assert image.size == (Frame.of(scene, 200).width, Frame.of(scene, 200).height)
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    plot = pixels[frame.top // 2 :, :]
    assert plot.max() > 150  # something bright is there


def test_dots_are_where_the_map_says(tmp_path):
    """A lone bright dot on an archimedean spiral lights its own pixel and is dark far away."""
    scene = picture.scene("sacks", count=3, start=4)  # 4, 5, 6: only 5 is prime
    image = np.asarray(picture.draw(scene, 300), dtype=int)
    frame = Frame.of(scene, 300)
    points = lt.sacks(np.array([4, 5, 6]))
    x, y = points.xy()
    px, py = frame.place(scene, x[1] / points.radius[2], y[1] / points.radius[2])
    assert np.abs(image[int(py), int(px)] - ACCENT).max() <= 2
    assert image[int(py) + 25, int(px) + 25].max() < 40


def test_dot_cover_is_its_area():
    """Anti-aliasing: the cover of a dot adds up to about πr², wherever its centre lies."""
    from cllm.lattice.picture.raster import _cover
    from cllm.lattice.picture.scene import Dots, Scene

    for shift in (0.0, 0.3, 0.77):
        one = np.array([shift / 50.0])
        dots = Dots(np.array([1]), one, one, np.array([0.06]), np.array([[255, 255, 255]]), np.array([True]))
        scene = Scene("", "", (), dots=dots)
        _, cover = _cover(dots, dots.bright, scene, Frame.of(scene, 100))
        assert cover.sum() == pytest.approx(math.pi * 6.0**2, rel=0.02)
        rows, columns = np.indices(cover.shape) + 0.5
        x, y = Frame.of(scene, 100).place(scene, one[0], one[0])
        assert (cover * columns).sum() / cover.sum() == pytest.approx(x, abs=0.02)
        assert (cover * rows).sum() / cover.sum() == pytest.approx(y, abs=0.02)


@pytest.mark.parametrize("scheme", picture.SCHEMES)
def test_colourings(scheme):
    n = np.arange(1, 500)
    shades = picture.colour(n, scheme, 12)
    assert shades.colours.shape == (499, 3) and shades.colours.dtype == np.uint8
    values = {
        "prime": lt.are_prime(n),
        "Omega": lt.factor_table(1, 500).big_omega,
        "omega": lt.factor_table(1, 500).omega,
        "mu": lt.factor_table(1, 500).mobius,
        "least": np.where(lt.are_prime(n), -1, np.minimum(lt.factor_table(1, 500).least, 11)),
        "residue": n % 12 + 12 * lt.are_prime(n),
        "gap": np.array([lt.next_prime(int(p)) - p if lt.is_prime(int(p)) else 0 for p in n]),
    }[scheme]
    seen = {}
    for value, colour in zip(np.asarray(values).tolist(), map(tuple, shades.colours.tolist()), strict=True):
        if scheme == "least" and value == 1:
            continue
        assert seen.setdefault(value, colour) == colour  # one value, one colour
    if scheme in ("prime", "mu", "residue"):
        assert len(set(seen.values())) == len(seen)
    for label, colour in shades.legend:
        assert label and len(rgb(colour)) == 3


def test_palette():
    scale = sequential(np.linspace(0, 1, 50)).astype(int)
    assert hexadecimal(scale[0]) == "#3d3f8f"
    assert np.abs(np.diff(scale, axis=0)).max() < 40  # no jump
    assert len({tuple(c) for c in wheel_colours(12).tolist()}) == 12


def test_animation(tmp_path):
    scene = picture.scene("ring-clock", count=232)
    for name in ("rings.gif", "rings.apng"):
        path = tmp_path / name
        picture.save_animation(scene, path, frames=6, size=120)
        with Image.open(path) as image:
            assert image.n_frames == 6
            lit = []
            for frame in range(6):
                image.seek(frame)
                lit.append(int((np.asarray(image.convert("RGB"), dtype=int).max(-1) > 60).sum()))
        assert lit[-1] > lit[0]
    from cllm.lattice.picture.animation import frame_scene

    assert [frame_scene(scene, i, 6).count for i in range(6)] == [39, 78, 116, 155, 194, 232]
    last = frame_scene(scene, 5, 6).dots
    assert np.array_equal(last.colours, scene.dots.colours)


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(DomainError, match='did you mean "ulam"'):
        picture.scene("ulan")
    with pytest.raises(DomainError, match="colouring"):
        picture.scene("ulam", scheme="primes?")
    with pytest.raises(LimitError):
        picture.scene("ulam", count=10**9)
    for step in (0.0, float("nan")):
        with pytest.raises(DomainError, match="step"):
            picture.scene("logarithmic", step=step)
    with pytest.raises(LimitError):
        picture.svg(picture.scene("vogel", count=300_000))
    with pytest.raises(DomainError, match=r"\.png or \.svg"):
        picture.save(picture.scene("vogel", count=3), tmp_path / "x.jpg")
    with pytest.raises(DomainError, match=r"\.gif"):
        picture.save_animation(picture.scene("vogel", count=3), tmp_path / "x.mp4")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"cllm\[pictures\]"):
        picture.save(picture.scene("vogel", count=3), tmp_path / "x.png")
    picture.save(picture.scene("vogel", count=3), tmp_path / "x.svg")  # needs no Pillow
