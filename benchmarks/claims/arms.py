"""The runs as data: what each arm is, and which arms a claim compares."""

from dataclasses import dataclass
from typing import Final

DENSE: Final = "dense"
RAW: Final = "raw"

PIXEL: Final = "pixel"
"""The run of stage 1, a DiT on classes, that arms may start from."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large all of it is. One campaign has one of these; every arm has the same pictures and steps."""

    drawn: int = 8_000  # training pictures drawn; the squares among them, some 42 %, are kept
    drawn_for_pixel: int = 8_000  # others, with classes, for stage 1
    drawn_for_test: int = 1_000
    prompts: int = 400  # at most; drawn once each by every run
    size_px: int = 64
    steps: int = 2_500
    pixel_steps: int = 1_000
    batch: int = 32
    lr: float = 2e-3
    warmup: int = 100
    ema_decay: float = 0.998
    looks: int = 10  # at the held-out loss in the course of a run
    guidance: float = 3.0
    sampler_steps: int = 20


@dataclass(frozen=True, slots=True)
class Arm:
    """What one run is trained on and starts from. All else is the same for every arm."""

    name: str
    about: str
    text: tuple[tuple[str, float], ...] = ((DENSE, 1.0),)  # caption variants and their weights
    from_pixel: bool = False  # start from stage 1, re-parameterised
    modulation: str = "single"
    longer: bool = False  # goes on from the base arm for as many steps as stage 1 had


BASE: Final = Arm(DENSE, "dense captions, adaLN-single, from random weights")

ARMS: Final = (
    BASE,
    Arm(RAW, "the alt texts instead", text=((RAW, 1.0),)),
    Arm("mixture", "of each picture the dense caption or the alt text, half and half", text=((DENSE, 0.5), (RAW, 0.5))),
    Arm("from-pixel", "starts from stage 1, re-parameterised", from_pixel=True),
    Arm("longer", "the base arm, trained on for the steps that stage 1 had", longer=True),
    Arm("per-block", "an adaLN in every block", modulation="per-block"),
    Arm("per-block-from-pixel", "an adaLN in every block, from stage 1", from_pixel=True, modulation="per-block"),
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the paper, and the pairs of arms that try it: the first of each against the second."""

    name: str
    claim: str
    pairs: tuple[tuple[str, str], ...]


CLAIMS: Final = (
    Claim(
        "a",
        "Starting from a class-conditional model, re-parameterised, beats starting from scratch.",
        (("from-pixel", DENSE), ("from-pixel", "longer")),
    ),
    Claim(
        "b",
        "Dense captions align pictures and text in fewer steps than alt texts.",
        ((RAW, DENSE), ("mixture", DENSE)),
    ),
    Claim(
        "c",
        "adaLN-single costs no quality against an adaLN in every block, and saves parameters and memory.",
        (("per-block", DENSE), ("per-block-from-pixel", "from-pixel")),
    ),
)


def arm_named(name: str) -> Arm:
    """The arm of that name. Raises `ValueError` for none."""
    found = [arm for arm in ARMS if arm.name == name]
    if not found:
        raise ValueError(f"no arm {name!r}; there are {', '.join(arm.name for arm in ARMS)}")
    return found[0]
