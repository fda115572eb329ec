"""How pictures are sent to a server: shrunk to the model's side, padded where the model wants squares, encoded."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image

from curation.images.resize import pad_to_square
from schemas.errors import UserError

CLIP_MEAN: Final = (122, 116, 104)
"""The mean of CLIP's image processors in 0 to 255, the colour that LLaVA-1.5 was trained to be padded with."""

_FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class PictureEncoding:
    """What is sent for a picture. All of it changes captions.

    side_px: longest side; larger pictures are shrunk to it (bicubic, antialiased), smaller ones stay. pad: colour of
    padding to a square, None for none. kind `png` is lossless; `jpeg` at `quality`, chroma not subsampled.
    """

    side_px: int
    pad: tuple[int, int, int] | None
    kind: Literal["png", "jpeg"] = "png"
    quality: int = 95

    @property
    def identity(self) -> dict[str, Any]:
        """What goes into the fingerprint."""
        quality = {} if self.kind == "png" else {"quality": self.quality}
        return {"side_px": self.side_px, "pad": self.pad, "kind": self.kind, **quality, "version": _FORMAT_VERSION}

    def data_url(self, image: Image.Image) -> str:
        """`image` as a data URL."""
        if self.pad is not None:
            image = pad_to_square(image, self.pad)
        longest = max(image.size)
        if longest > self.side_px:
            width, height = (max(1, round(side * self.side_px / longest)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        if self.kind == "png":
            image.save(file, "PNG", compress_level=1)
        else:
            image.save(file, "JPEG", quality=self.quality, subsampling=0)
        return f"data:image/{self.kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def picture_wanted(directory: str) -> tuple[int, tuple[int, int, int] | None] | None:
    """What the checkpoint in `directory` wants: the longest side in pixels, and the colour of padding to a square.

    Models that cut pictures into tiles pad by themselves and want the side of their largest tiling. None if the
    checkpoint does not say.
    """
    model = _json(directory, "config.json")
    processor = _json(directory, "processor_config.json").get("image_processor") or _json(
        directory, "preprocessor_config.json"
    )
    tilings = processor.get("image_grid_pinpoints") or model.get("image_grid_pinpoints")
    if isinstance(tilings, list) and tilings:
        return max(max(tiling) for tiling in tilings), None
    crop = processor.get("crop_size")
    side = crop.get("height") if isinstance(crop, Mapping) else crop
    mean = processor.get("image_mean")
    if model.get("model_type") != "llava" or not isinstance(side, int) or not isinstance(mean, list):
        return None
    red, green, blue = (int(255 * value) for value in mean)
    return side, (red, green, blue)


def kind_named(text: str) -> tuple[Literal["png", "jpeg"], int]:
    """The encoding that `png`, `jpeg` or `jpeg:QUALITY` names. Raises `UserError` for any other text."""
    name, colon, quality = text.partition(":")
    if name == "png" and not colon:
        return "png", 95
    if name == "jpeg" and (not colon or (quality.isdecimal() and 1 <= int(quality) <= 100)):
        return "jpeg", int(quality) if colon else 95
    raise UserError(f"--picture-format {text}: no such format. Give png, jpeg or jpeg:90.")


def _json(directory: str, name: str) -> dict[str, Any]:
    path = Path(directory) / name
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}). Is the checkpoint whole?") from None
    return found if isinstance(found, dict) else {}
