"""Bring a picture to an exact size without ever distorting it: pad to a square, or cover and crop."""

from dataclasses import dataclass
from typing import Final

from PIL import Image

# Pillow halves (or thirds, ...) by plain averages while the picture stays this many times larger than asked, then
# filters. At 3.0 its documentation calls the result indistinguishable from filtering the whole picture.
_REDUCING_GAP: Final = 3.0


@dataclass(frozen=True, slots=True)
class CropBox:
    """Where a crop lies: the size the picture was resized to, and the crop's top left corner in it, all in pixels."""

    resized_height: int
    resized_width: int
    crop_top: int
    crop_left: int


def pad_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The picture centred on a square of its longer side, filled with `colour`.

    The offset is (longer - shorter) // 2, as in LLaVA (Liu et al. 2023, `expand2square`), where `colour` is the image
    processor's mean in 0 to 255. A square picture comes back as it is.
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def cover_size(height: int, width: int, height_px: int, width_px: int) -> tuple[int, int]:
    """(height, width) of a height × width picture scaled to just cover height_px × width_px.

    One side fits exactly; the other is rounded to the nearest pixel, half a pixel up.
    """
    if height_px * width >= width_px * height:
        return height_px, max(width_px, (2 * width * height_px + height) // (2 * height))
    return max(height_px, (2 * height * width_px + width) // (2 * width)), width_px


def cover_and_crop(image: Image.Image, height_px: int, width_px: int) -> tuple[Image.Image, CropBox]:
    """The centre of the picture at exactly height_px × width_px, and where it was taken from.

    Bicubic and antialiased. Smaller pictures are enlarged; whether that is wanted is the caller's to decide. An odd
    margin leaves its extra pixel at the bottom or right.

    Raises ValueError for sizes below 1.
    """
    if height_px < 1 or width_px < 1:
        raise ValueError(f"cannot crop to {height_px}x{width_px} px")
    height, width = cover_size(image.height, image.width, height_px, width_px)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
    top, left = (height - height_px) // 2, (width - width_px) // 2
    if (height, width) != (height_px, width_px):
        image = image.crop((left, top, left + width_px, top + height_px))
    return image, CropBox(height, width, top, left)
