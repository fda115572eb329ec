"""What is measured on a picture's pixels: its perceptual hash, brightness, contrast and sharpness."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

MEASURED_SIDE: Final = 256
"""Shorter side in pixels at which brightness, contrast and sharpness are measured; smaller pictures as they are."""

_REDUCED: Final = 32
_FREQUENCIES: Final = 8
_NO_DETAIL: Final = 1.0
_TIE: Final = 0.01


@dataclass(frozen=True, slots=True)
class PictureMeasures:
    """`phash` is None for a picture without detail. Luma is Rec. 601, 0 to 255, mean and standard deviation.

    `sharpness` is the variance of the Laplacian (4 neighbours) of the luma (Pech-Pacheco et al. 2000).
    """

    phash: int | None
    luma_mean: float
    luma_std: float
    sharpness: float


def measure_picture(image: Image.Image) -> PictureMeasures:
    """Measure an RGB picture of at least 3 x 3 px."""
    luma = image.convert("L")
    scale = MEASURED_SIDE / min(luma.size)
    small = luma
    if scale < 1:
        small = luma.resize((round(luma.width * scale), round(luma.height * scale)), Image.Resampling.BOX)
    values = np.asarray(small, np.float32)
    return PictureMeasures(
        phash=perceptual_hash(luma),
        luma_mean=float(values.mean(dtype=np.float64)),
        luma_std=float(values.std(dtype=np.float64)),
        sharpness=float(_laplacian(values).var(dtype=np.float64)),
    )


def perceptual_hash(luma: Image.Image) -> int | None:
    """The 64-bit DCT hash (pHash, Zauner 2010) of a picture of mode L.

    The picture is averaged down to 32 x 32 regardless of its aspect; of the orthonormal DCT-II of that, the 8 x 8
    coefficients of frequencies 1 to 8 in each direction each give a bit, whether it lies above their median; vertical
    frequency 1, horizontal frequency 1 is the most significant bit, and horizontal frequencies come first. Frequency 0
    tells of brightness and plain gradients, so it is left out.

    None where no coefficient reaches 1 (a sixteenth of a grey level): all such pictures would look like copies.
    """
    reduced = np.asarray(luma.resize((_REDUCED, _REDUCED), Image.Resampling.BOX), np.float64)
    coefficients = (_COSINES @ reduced @ _COSINES.T).ravel()
    if np.abs(coefficients).max() < _NO_DETAIL:
        return None
    # Symmetric pictures have coefficients that are nought but for rounding: those must fall on one side everywhere.
    bits = coefficients > np.median(coefficients) + _TIE
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> npt.NDArray[np.float64]:
    """Rows of the orthonormal DCT-II, [8, 32]."""
    frequency = np.arange(1, _FREQUENCIES + 1)[:, None]
    place = np.arange(_REDUCED) + 0.5
    return np.sqrt(2 / _REDUCED) * np.cos(np.pi / _REDUCED * frequency * place)


_COSINES: Final = _cosines()


def _laplacian(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[H, W] to [H - 2, W - 2]."""
    inner = values[1:-1, 1:-1]
    return values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
