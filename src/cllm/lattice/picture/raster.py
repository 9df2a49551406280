"""A scene as pixels: cells exactly, dots anti-aliased by their cover.  Words and PNG need Pillow, imported late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cllm.errors import LimitError, MissingExtraError
from cllm.lattice.picture.palette import FAINT, GROUND, PANEL, QUIET, TEXT, rgb
from cllm.lattice.picture.scene import Dots, Frame, Scene

MAX_SIZE = 8192
Image = Any


def pillow() -> tuple[Any, Any, Any, Any]:
    """(Image, ImageDraw, ImageFont, ImageFilter) of Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFilter, ImageFont
    except ImportError:
        raise MissingExtraError("Pillow (for PNG, GIF and APNG)", "pip install 'cllm[pictures]'") from None
    return Image, ImageDraw, ImageFont, ImageFilter


def draw(scene: Scene, size: int = 1000) -> Image:
    """The scene as a Pillow image whose plot is about `size` pixels wide (cells: a whole number of pixels a cell)."""
    images, drawing, _, filters = pillow()
    if not 64 <= size <= MAX_SIZE or (scene.cells is not None and scene.cells.side > MAX_SIZE):
        raise LimitError(f"draw: a picture is 64 to {MAX_SIZE} pixels wide, got {size}")
    frame = Frame.of(scene, size)
    if scene.cells is not None:
        image = images.fromarray(_cells(scene, frame))
    else:
        image = _guides(scene, frame, images, drawing)
        if scene.dots is not None and scene.dots.n.size:
            image = _dots(scene, frame, image, images, filters)
    _words(scene, frame, image)
    return image


def save_png(scene: Scene, path: str | Path, size: int = 1000) -> None:
    """Write a PNG; the parameters and the frame are stored in it as text (`cllm`), so that it can be read back."""
    from PIL.PngImagePlugin import PngInfo

    image = draw(scene, size)
    frame = Frame.of(scene, size)
    about = {**scene.parameters, "left": frame.left, "top": frame.top, "cell": frame.cell, "plot": frame.plot}
    info = PngInfo()
    info.add_text("cllm", json.dumps(about))
    info.add_text("Title", scene.title)
    if scene.cells is not None and len(colours := image.getcolors(256) or ()) and len(colours) <= 256:
        image = image.quantize(len(colours), dither=0)
    image.save(path, format="PNG", pnginfo=info, optimize=True)


def _cells(scene: Scene, frame: Frame) -> NDArray[np.uint8]:
    cells = scene.cells
    assert cells is not None
    canvas = np.empty((frame.height, frame.width, 3), dtype=np.uint8)
    canvas[:] = GROUND
    grid = np.empty((cells.side, cells.side, 3), dtype=np.uint8)
    grid[:] = PANEL
    grid[cells.row, cells.column] = np.where((cells.colours == FAINT).all(-1)[:, None], PANEL, cells.colours)
    block = grid.repeat(frame.cell, axis=0).repeat(frame.cell, axis=1)
    canvas[frame.top : frame.top + frame.plot, frame.left : frame.left + frame.plot] = block
    return canvas


def _guides(scene: Scene, frame: Frame, images: Any, drawing: Any) -> Image:
    """Faint circles and spokes, drawn three times too large and scaled down."""
    zoom = 3
    width, height = frame.width * zoom, frame.height * zoom
    if not (scene.circles or scene.spokes or scene.hand):
        return images.new("RGB", (frame.width, frame.height), GROUND)
    canvas = images.new("RGB", (width, height), GROUND)
    pen = drawing.Draw(canvas)
    x0, y0 = frame.place(scene, 0.0, 0.0)
    unit = frame.scale(scene)
    line = tuple(int(0.55 * a + 0.45 * b) for a, b in zip(GROUND, FAINT, strict=True))
    for radius in scene.circles:
        r = radius * unit
        box = [zoom * (x0 - r), zoom * (y0 - r), zoom * (x0 + r), zoom * (y0 + r)]
        if scene.quadrant:
            pen.arc(box, -90, 0, fill=line, width=2)
        else:
            pen.ellipse(box, outline=line, width=2)
    for angle in scene.spokes:
        end = (zoom * (x0 + unit * np.cos(angle)), zoom * (y0 - unit * np.sin(angle)))
        pen.line([(zoom * x0, zoom * y0), end], fill=line, width=2)
    if scene.hand is not None:
        x1, y1 = frame.place(scene, *scene.hand)
        pen.line([(zoom * x0, zoom * y0), (zoom * x1, zoom * y1)], fill=QUIET, width=max(3, frame.plot // 250))
    return canvas.resize((frame.width, frame.height), images.Resampling.BOX)


def _dots(scene: Scene, frame: Frame, image: Image, images: Any, filters: Any) -> Image:
    dots = scene.dots
    assert dots is not None
    canvas = np.asarray(image, dtype=np.float64)
    faint, bright = ~dots.bright, dots.bright
    for layer, glow in ((faint, False), (bright, True)):
        if not bool(layer.any()):
            continue
        colour, cover = _cover(dots, layer, scene, frame)
        if glow:
            light = images.fromarray(np.rint(colour * cover[..., None]).astype(np.uint8))
            radius = max(2.0, frame.plot * 0.005)
            blurred = np.asarray(light.filter(filters.GaussianBlur(radius)), dtype=np.float64)
            canvas = 255 - (255 - canvas) * (255 - 0.45 * blurred) / 255
        canvas = canvas * (1 - cover[..., None]) + colour * cover[..., None]
    return images.fromarray(np.rint(np.clip(canvas, 0, 255)).astype(np.uint8))


def _cover(
    dots: Dots, layer: NDArray[np.bool_], scene: Scene, frame: Frame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(colour, cover) of every pixel by round dots: cover is clip(r + ½ − distance, 0, 1), added up to at most 1."""
    x, y = frame.place(scene, dots.x[layer], dots.y[layer])
    radius = np.maximum(dots.radius[layer] * frame.plot, 0.45)
    colours = dots.colours[layer].astype(np.float64)
    reach = int(np.ceil(float(radius.max()) + 0.5))
    pixels = frame.width * frame.height
    total, tint = np.zeros(pixels), np.zeros((3, pixels))
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            px, py = column + dx, row + dy
            weight = np.clip(radius + 0.5 - np.hypot(px + 0.5 - x, py + 0.5 - y), 0, 1)
            use = (weight > 0) & (px >= 0) & (px < frame.width) & (py >= 0) & (py < frame.height)
            if not bool(use.any()):
                continue
            place, amount = py[use] * frame.width + px[use], weight[use]
            total += np.bincount(place, amount, pixels)
            for channel in range(3):
                tint[channel] += np.bincount(place, amount * colours[use, channel], pixels)
    shape = (frame.height, frame.width)
    colour = (tint / np.maximum(total, 1e-12)).T.reshape(*shape, 3)
    return colour, np.minimum(total, 1.0).reshape(shape)


def _words(scene: Scene, frame: Frame, image: Image) -> None:
    """Title above; caption and legend below."""
    images, drawing, fonts, _ = pillow()
    pen = drawing.Draw(image)
    unit = max(frame.width, 300) / 1080
    big, small = fonts.load_default(size=max(13, round(30 * unit))), fonts.load_default(size=max(9, round(16 * unit)))
    pen.text((frame.left, frame.top * 0.5), scene.title, font=big, fill=TEXT, anchor="lm")
    base = frame.top + frame.plot
    room = frame.height - base
    words = scene.caption
    while small.getlength(words) > frame.plot and "  ·  " in words:
        words = words.rsplit("  ·  ", 1)[0]
    pen.text((frame.left, base + room * 0.36), words, font=small, fill=QUIET, anchor="lm")
    x, y = float(frame.left), base + room * 0.72
    dot = 0.36 * small.size
    for label, colour in scene.legend:
        needed = 2.6 * dot + small.getlength(label) + 1.1 * small.size
        if x + needed > frame.left + frame.plot + small.size:
            break
        spot = images.new("L", (64, 64), 0)
        drawing.Draw(spot).ellipse([0, 0, 63, 63], fill=255)
        spot = spot.resize((round(2 * dot), round(2 * dot)), images.Resampling.BOX)
        image.paste(rgb(colour), (round(x), round(y - dot)), spot)
        pen.text((x + 2.6 * dot, y), label, font=small, fill=QUIET, anchor="lm")
        x += needed
