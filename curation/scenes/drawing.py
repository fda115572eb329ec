"""Draw a scene: everything at three times the size, then scaled down, so that edges are smooth."""

import math
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from curation.scenes.figures import FIGURES, Part
from curation.scenes.scene import Ground, Scene, Thing, generator
from curation.scenes.vocabulary import COLOURS, LANDSCAPES, RGB, mixed

_OVERSAMPLING: Final = 3
_DRAWING_STREAM: Final = 100  # of randomness; those of scenes are below
_WHITE: Final[RGB] = (255, 255, 255)
_BLACK: Final[RGB] = (0, 0, 0)
_DETAILS: Final[dict[str, RGB]] = {"light": (246, 240, 226), "dark": (58, 52, 52), "wood": (120, 82, 48)}
_TINT: Final = 8  # most that a colour differs from its name's, in each channel
_DARK_BODY: Final = 100  # mean of the channels, below which details that are dark would not be seen
_PATTERN: Final = 0.085  # period of a texture as share of the picture's shorter side
_STROKE: Final = 0.022  # of a sketch, as share of the shorter side
_BLUR: Final = 0.016  # standard deviation, as share of the shorter side


def draw(scene: Scene, *, short_px: int | None = None) -> Image.Image:
    """The picture of a scene, RGB; its own size, or scaled so that the shorter side has `short_px` pixels."""
    scale = 1.0 if short_px is None else short_px / min(scene.height_px, scene.width_px)
    width_px, height_px = round(scene.width_px * scale), round(scene.height_px * scale)
    random = generator(scene.seed, scene.number, _DRAWING_STREAM)
    image = _draw_ground(scene.ground, width_px * _OVERSAMPLING, height_px * _OVERSAMPLING)
    for thing in scene.things:
        red, green, blue = (c + int(random.integers(-_TINT, _TINT + 1)) for c in COLOURS[thing.colour])
        _draw_thing(image, thing, (red, green, blue), sketch=scene.style == "sketch")
    image = image.resize((width_px, height_px), Image.Resampling.BOX)
    if scene.style == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(_BLUR * min(width_px, height_px)))
    return image


def _draw_ground(ground: Ground, width: int, height: int) -> Image.Image:
    if ground.kind == "gradient":
        return _gradient(COLOURS[ground.colours[0]], COLOURS[ground.colours[1]], width, height)
    if ground.kind == "plain":
        return Image.new("RGB", (width, height), COLOURS[ground.colours[0]])
    bands = LANDSCAPES[ground.kind]
    image = Image.new("RGB", (width, height), bands[0])
    pen = ImageDraw.Draw(image)
    if ground.kind == "meadow":
        pen.ellipse((-0.5 * width, 0.6 * height, 1.5 * width, 1.8 * height), fill=bands[1])
    elif ground.kind == "beach":
        pen.rectangle((0, 0.5 * height, width, height), fill=bands[1])
        pen.ellipse((-0.7 * width, 0.72 * height, 1.4 * width, 1.8 * height), fill=bands[2])
    elif ground.kind == "night":
        image = _gradient(mixed(bands[0], _BLACK, 0.4), mixed(bands[0], _WHITE, 0.12), width, height)
        _draw_specks(image)
    else:
        pen.rectangle((0, 0.68 * height, width, height), fill=bands[1])
        pen.rectangle((0, 0.66 * height, width, 0.69 * height), fill=mixed(bands[0], _WHITE, 0.6))
    return image


def _draw_specks(image: Image.Image) -> None:
    """The light points of a night sky: on a fixed pattern that repeats nowhere near."""
    pen = ImageDraw.Draw(image)
    size = max(1, min(image.size) // 130)
    for i in range(1, 40):
        x, y = (i * 0.618034) % 1 * image.width, (i * 0.414214) % 1 * image.height
        pen.ellipse((x - size, y - size, x + size, y + size), fill=(196, 200, 224))


def _gradient(top: RGB, bottom: RGB, width: int, height: int) -> Image.Image:
    column = Image.linear_gradient("L").resize((1, height), Image.Resampling.BILINEAR).resize((width, height))
    return Image.composite(Image.new("RGB", (width, height), bottom), Image.new("RGB", (width, height), top), column)


def _draw_thing(image: Image.Image, thing: Thing, colour: RGB, *, sketch: bool) -> None:
    short = min(image.size)
    half = thing.radius * short
    side = math.ceil(2 * half)
    corner = round(thing.x * image.width - half), round(thing.y * image.height - half)
    period, stroke = _PATTERN * short, max(1, round(_STROKE * short))
    paints = _paints(colour, thing.texture, side, period)
    for part in FIGURES[thing.noun]:
        mask = _mask(part, side)
        if sketch and part.kind != "line":
            inside = ImageChops.multiply(mask, _stripes(side, period / 2))
            within = inside if part.paint in ("body", "shade") else Image.new("L", (side, side))
            mask = ImageChops.lighter(within, _outline(part, side, stroke))
        image.paste(paints[part.paint], corner, mask)


def _paints(colour: RGB, texture: str, side: int, period: float) -> dict[str, Image.Image]:
    """What each kind of part is filled with."""
    is_dark = sum(colour) / 3 < _DARK_BODY
    tones = {name: mixed(rgb, _WHITE, 0.4) if is_dark and name == "dark" else rgb for name, rgb in _DETAILS.items()}
    tones |= {"body": colour, "shade": mixed(colour, _WHITE, 0.3) if sum(colour) < 90 else mixed(colour, _BLACK, 0.3)}
    filled = {name: Image.new("RGB", (side, side), rgb) for name, rgb in tones.items()}
    if texture != "plain":
        second = mixed(colour, _BLACK, 0.42) if min(sum(colour) / 3, 255) > 165 else mixed(colour, _WHITE, 0.72)
        patterns = {"striped": _stripes, "dotted": _dots, "checked": _checks}
        other = Image.new("RGB", (side, side), second)
        filled["body"] = Image.composite(filled["body"], other, patterns[texture](side, period))
    return filled


def _stripes(side: int, period: float) -> Image.Image:
    """255 where the first tone is; stripes lean by 45 degrees."""
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    step = period * math.sqrt(2)
    for i in range(math.ceil(2 * side / step) + 1):
        x = i * step - side
        pen.polygon([(x, side), (x + step * 0.55, side), (x + step * 0.55 + side, 0), (x + side, 0)], fill=255)
    return mask


def _dots(side: int, period: float) -> Image.Image:
    mask = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(mask)
    count = math.ceil(side / period) + 1
    radius = 0.29 * period
    for row in range(count):
        for column in range(count):
            x, y = (column + 0.5 * (row % 2)) * period, (row + 0.5) * period * 0.9
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return mask


def _checks(side: int, period: float) -> Image.Image:
    mask = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(mask)
    cell = 0.62 * period
    count = math.ceil(side / cell)
    for row in range(count):
        for column in range(row % 2, count, 2):
            pen.rectangle((column * cell, row * cell, (column + 1) * cell - 1, (row + 1) * cell - 1), fill=0)
    return mask


def _mask(part: Part, side: int) -> Image.Image:
    """255 where the part is."""
    mask = Image.new("L", (side, side))
    _trace(ImageDraw.Draw(mask), part, side, fill=255, width=None)
    return mask


def _outline(part: Part, side: int, stroke: int) -> Image.Image:
    """255 along the part's edge."""
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    _trace(pen, part, side, fill=None, width=stroke)
    if part.kind == "ring":
        band = part.width
        (left, top), (right, bottom) = part.points
        inner = Part("ellipse", ((left + band, top + band), (right - band, bottom - band)))
        _trace(pen, inner, side, fill=None, width=stroke)
    return mask


def _trace(pen: ImageDraw.ImageDraw, part: Part, side: int, *, fill: int | None, width: int | None) -> None:
    """Draw the part filled, or its outline of that width."""
    points = [((x + 1) / 2 * (side - 1), (y + 1) / 2 * (side - 1)) for x, y in part.points]
    outline = None if width is None else 255
    if part.kind == "polygon":
        pen.polygon(points, fill=fill, outline=outline, width=width or 1)
    elif part.kind == "ellipse":
        pen.ellipse((*points[0], *points[1]), fill=fill, outline=outline, width=width or 1)
    elif part.kind == "ring":
        band = round(part.width / 2 * side)
        pen.ellipse((*points[0], *points[1]), outline=255, width=band if width is None else width)
    else:
        pen.line(points, fill=255, width=max(1, round(part.width / 2 * side)), joint="curve")
