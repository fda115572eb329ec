"""Pictures on their way from files to a feature network. How they get there moves a Fréchet distance by several points,
so it is chosen and recorded, never left to a library's default (Parmar, Zhang & Zhu 2022)."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from schemas.errors import UserError

CLEAN: Final = "clean"
LEGACY: Final = "legacy"
NONE: Final = "none"
RESIZES: Final = {
    CLEAN: "antialiased bicubic in float32, as clean-fid",
    LEGACY: "bilinear without antialiasing, as pytorch-fid",
    NONE: "left to the network",
}

_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_AHEAD: Final = 4  # batches that are read while the network works on one


@dataclass(frozen=True, slots=True)
class Preparation:
    """First the whole picture, or its centre square at `square_px`; then `resize` to the network's `input_px`.

    The centre square is resized by Lanczos and rounded to 8 bits, as the reference pictures of GigaGAN's protocol are:
    it is the picture that is judged. The second step belongs to the network. Pictures are read as RGB without their
    EXIF rotation; `input_px` is 0 where the second step is the network's own.
    """

    square_px: int  # 0: the whole picture, whatever its shape
    resize: str
    input_px: int

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise UserError(f"resize {self.resize!r} is unknown. Use one of {', '.join(RESIZES)}.")
        if self.square_px < 0 or self.input_px < 0 or (self.resize == NONE) != (self.input_px == 0):
            raise UserError(f"resize {self.resize} to {self.input_px} px does not go together. Give a size above 0.")

    def describe(self) -> str:
        """The steps in words: equal for equal preparations."""
        square = f"centre square, Lanczos to {self.square_px} px, 8 bits" if self.square_px else "whole picture"
        size = f" to {self.input_px} px" if self.input_px else ""
        return f"{square}; {RESIZES[self.resize]}{size}"

    def read(self, path: Path) -> Tensor:
        """The picture in a file as the network takes it: float32 [3, H, W], values around 0 to 255.

        Raises `UserError` if it cannot be read.
        """
        try:
            with Image.open(path) as image:
                picture = image.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{path}: no readable picture ({error}). Make it again, or take it away.") from None
        if self.square_px:
            picture = centre_square(picture, self.square_px)
        if self.resize == CLEAN:
            return torch.from_numpy(_clean(picture, self.input_px))
        pixels = torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1)
        if self.resize == LEGACY:
            size = (self.input_px, self.input_px)
            pixels = torch.nn.functional.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False)[0]
        return pixels


def centre_square(picture: Image.Image, side_px: int) -> Image.Image:
    """The middle of a picture, as wide as its short side, at `side_px`."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square if side == side_px else square.resize((side_px, side_px), Image.Resampling.LANCZOS)


def _clean(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """Each channel by itself in Pillow's float mode, neither rounded nor clipped afterwards: [3, size, size]."""
    channels = [Image.fromarray(np.asarray(channel, dtype=np.float32)) for channel in picture.split()]
    return np.stack([np.asarray(one.resize((size, size), Image.Resampling.BICUBIC)) for one in channels])


def picture_files(folder: Path) -> list[Path]:
    """All pictures in `folder` and below, in the order of their paths; grids of sampling commands apart.

    Raises `UserError` if there are none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory. Give a directory of pictures.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.name != "grid.png")
    if not found:
        raise UserError(f"{folder}: no pictures in it ({', '.join(sorted(_SUFFIXES))}). Give a directory of pictures.")
    return found


def batches(paths: Sequence[Path], preparation: Preparation, batch: int, threads: int) -> Iterator[Tensor]:
    """The pictures in order, `batch` at a time: float32 [B, 3, H, W]. `threads` read them ahead.

    Raises `UserError` for a picture that cannot be read, and for pictures of different sizes where nothing resizes.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Tensor]] = deque()
        waiting = iter(paths)
        for start in range(0, len(paths), batch):
            chosen = paths[start : start + batch]
            while len(pending) < _AHEAD * batch and (path := next(waiting, None)) is not None:
                pending.append(pool.submit(preparation.read, path))
            pictures = [pending.popleft().result() for _ in chosen]
            _require_one_shape(chosen, pictures)
            yield torch.stack(pictures)


def _require_one_shape(paths: Sequence[Path], pictures: Sequence[Tensor]) -> None:
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            sizes = [f"{one.shape[1]}x{one.shape[2]}" for one in (pictures[0], picture)]
            raise UserError(
                f"{paths[0]} is {sizes[0]} px and {path} is {sizes[1]}. Where the network resizes, all must have one "
                f"size: give --square, or --resize clean."
            )
