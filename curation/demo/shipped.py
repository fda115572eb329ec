"""Where the checkpoints lie that come with the package; each has a card of its own."""

from pathlib import Path
from typing import Final

LLAVA: Final = Path(__file__).parent / "checkpoints" / "llava"
