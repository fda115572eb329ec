"""From any of Pillow's modes to RGB, without clipping, and with transparency laid on a stated background."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

_COLOUR_NOTES: Final = {
    "CMYK": "cmyk",
    "YCbCr": "ycbcr",
    "LAB": "lab",
    "HSV": "hsv",
    "P": "palette",
    "PA": "palette",
    "1": "1-bit",
    "L": "grey",
    "LA": "grey",
    "La": "grey",
    "F": "float",
    "I": "32-bit",
}
# Pictures of floats declare no white. The first of these that holds every value is taken for it.
_USUAL_WHITES: Final = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0, 4294967295.0)}


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """What the file says of its samples and Pillow's mode does not tell.

    `bits` a sample (None where unknown), whether they are `signed`, and whether zero is white (TIFF's WhiteIsZero).
    """

    bits: int | None = None
    signed: bool = False
    white_is_zero: bool = False


def to_rgb(image: Image.Image, facts: SampleFacts, background: tuple[int, ...]) -> tuple[Image.Image, tuple[str, ...]]:
    """The loaded `image` in mode RGB, and notes on what it was.

    Raises ValueError for a picture whose samples are not finite, and what Pillow raises where it cannot convert.
    """
    notes = [_COLOUR_NOTES[image.mode]] if image.mode in _COLOUR_NOTES else []
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        alpha = _colour_key_mask(image)
        if image.mode.startswith("I;16") or facts.bits == 16:
            notes = ["16-bit"]
        image = Image.fromarray(_to_bytes(image, facts))
        if alpha is not None:
            image.putalpha(alpha)
    else:
        _scale_colour_key(image, facts)
    if image.has_transparency_data or image.mode in ("La", "RGBa"):
        notes.append("alpha")
        image = _on_background(image, background)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image, tuple(notes)


def _on_background(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _to_bytes(image: Image.Image, facts: SampleFacts) -> npt.NDArray[np.uint8]:
    """Grey samples of more than 8 bits, scaled so that black is 0 and white 255; uint8 [H, W]."""
    samples = np.asarray(image).astype(np.float64)
    if image.mode == "I" and not facts.signed and facts.bits == 32:
        samples = np.asarray(image).view(np.uint32).astype(np.float64)  # Pillow keeps the bits in a signed sample
    if not np.isfinite(samples).all():
        raise ValueError("samples are not finite")
    black, white = _black_and_white(image.mode, samples, facts)
    grey = np.rint((samples - black) * 255.0 / max(white - black, 1e-12)).astype(np.uint8)
    return 255 - grey if facts.white_is_zero else grey


def _black_and_white(mode: str, samples: npt.NDArray[np.float64], facts: SampleFacts) -> tuple[float, float]:
    """The values that stand for black and white: as declared, else the first usual range that holds all samples,
    else the smallest and the largest sample."""
    low, high = float(samples.min()), float(samples.max())
    if mode.startswith("I;16"):
        whites: tuple[float, ...] = (float(2 ** (facts.bits or 16) - 1), 65535.0)
    elif mode == "I" and facts.bits == 16:
        whites = (32767.0, 65535.0) if facts.signed else (65535.0,)
    else:
        whites = _USUAL_WHITES[mode]
    if low >= 0:
        for white in whites:
            if high <= white:
                return 0.0, white
    return low, high


def _colour_key_mask(image: Image.Image) -> Image.Image | None:
    """Where a picture of 16-bit samples names one value as transparent: the alpha channel that this makes."""
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return None
    return Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))


def _scale_colour_key(image: Image.Image, facts: SampleFacts) -> None:
    """Bring a PNG's transparent value to the 8 bits that Pillow brings the samples to, and the value not."""
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int) and facts.bits in (2, 4) and key < 2**facts.bits:
        image.info["transparency"] = key * (255 // (2**facts.bits - 1))
    if image.mode == "RGB" and isinstance(key, tuple) and facts.bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)
