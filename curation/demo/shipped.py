"""Where the checkpoints lie that come with the package; each has a card of its own."""

from pathlib import Path
from typing import Final

_CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"

LLAVA: Final = _CHECKPOINTS / "llava"
VAE: Final = _CHECKPOINTS / "vae"
DETECTOR: Final = _CHECKPOINTS / "detector"
