"""What others say that their training cost, as published. Figures alone; none of them was measured here.

Table 2 is that of the later revision of PixArt-α (arXiv 2310.00426; 753 A100 days, FID 7.32) as its repository's README
prints it. The first revision gives 675 days and $26,000, which the paper's abstract and title page still carry. FID-30K
is on COCO, zero-shot unless said; each row is by its own authors' protocol.
"""

from dataclasses import dataclass
from typing import Final

REVISION: Final = "PixArt-α, later revision (753 A100 days)"


@dataclass(frozen=True, slots=True)
class Peer:
    """A row of Table 2. Days are A100 days; None where nothing is published."""

    name: str
    parameters_b: float
    images_m: float  # of the training set
    fid: float | None
    days: float | None
    note: str = ""


TABLE_2: Final = (
    Peer("DALL·E", 12.0, 250, 27.50, None),
    Peer("GLIDE", 5.0, 250, 12.24, None),
    Peer("LDM", 1.4, 400, 12.64, None),
    Peer("DALL·E 2", 6.5, 650, 10.39, None, "days misprinted as 41,66"),
    Peer("SDv1.5", 0.9, 2000, 9.62, 6250),
    Peer("GigaGAN", 0.9, 2700, 9.09, 4783),
    Peer("Imagen", 3.0, 860, 7.27, 7132),
    Peer("RAPHAEL", 3.0, 5000, 6.61, 60_000),
    Peer("PixArt-α", 0.6, 25, 7.32, 753, "5.51 fine-tuned on COCO"),
)


@dataclass(frozen=True, slots=True)
class PaperStage:
    """A row of Table 4. Days are V100 days."""

    name: str  # as in training.stages
    resolution_px: int
    images_m: float  # of the training set
    steps: int
    batch: int  # over all GPUs
    gpus: int
    lr: float
    days: float


TABLE_4: Final = (
    PaperStage("pixel", 256, 1, 300_000, 1024, 8, 2e-5, 88),
    PaperStage("align", 256, 10, 150_000, 11_392, 64, 2e-5, 672),
    PaperStage("aesthetic-256", 256, 14, 90_000, 11_392, 64, 2e-5, 416),
    PaperStage("aesthetic-512", 512, 14, 100_000, 2_560, 64, 2e-5, 320),
    PaperStage("aesthetic-1024", 1024, 14, 16_000, 384, 32, 2e-5, 160),
)

V100_DAYS_AN_A100_DAY: Final = 2.2
"""The paper's own rate: 1,656 V100 days are its 753 A100 days. Features and captions are not in them."""
