"""Where the real pictures are, and how to make small ones."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A 64x80 RGB picture (height x width) with no symmetry, some noise, and no black or mid-grey."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(64), np.arange(80) * 2)[..., None] // 2
    pixels = ramp + np.array([20, 60, 100]) + rng.integers(0, 12, (64, 80, 3))
    pixels[:16, :24] = (250, 20, 20)
    return Image.fromarray(pixels.clip(1, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """`encoded(image, format, **options)`: the image as a file of that format."""

    def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def files(photo: Image.Image, encoded: Callable[..., bytes]) -> dict[str, bytes]:
    """One small file of every format and main variant that is decoded, by name."""
    palette = photo.convert("P", palette=Image.Palette.ADAPTIVE)
    turned = photo.transpose(Image.Transpose.ROTATE_180)
    return {
        "JPEG": encoded(photo, "JPEG", quality=90),
        "JPEG progressive": encoded(photo, "JPEG", quality=90, progressive=True),
        "JPEG cmyk": encoded(photo.convert("CMYK"), "JPEG", quality=95),
        "JPEG grey": encoded(photo.convert("L"), "JPEG"),
        "PNG": encoded(photo, "PNG"),
        "PNG palette": encoded(palette, "PNG"),
        "PNG alpha": encoded(photo.convert("RGBA"), "PNG"),
        "WEBP": encoded(photo, "WEBP"),
        "WEBP lossless": encoded(photo, "WEBP", lossless=True),
        "WEBP animated": encoded(photo, "WEBP", save_all=True, append_images=[turned]),
        "GIF": encoded(palette, "GIF"),
        "GIF animated": encoded(palette, "GIF", save_all=True, append_images=[turned.convert("P")]),
        "BMP": encoded(photo, "BMP"),
        "TIFF": encoded(photo, "TIFF"),
        "TIFF lzw": encoded(photo, "TIFF", compression="tiff_lzw"),
        "TIFF jpeg": encoded(photo, "TIFF", compression="jpeg"),
        "AVIF": encoded(photo, "AVIF"),
    }
