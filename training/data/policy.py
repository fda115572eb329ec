"""How samples are put together into batches: what a run is never resumed under another of."""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Final

import xxhash

from schemas.errors import UserError
from schemas.record import canonical_json

TOKENS_COUNTED: Final = ("all", "text")


@dataclass(frozen=True, slots=True)
class Share:
    """How one dataset of a mixture is used.

    `weight` is how often each of its samples is used an epoch: 1 once, 0.25 in every fourth epoch, 3 three times.
    `captions` are the weights of its caption variants, one a text dataset; they need not add up to 1. `flipped` is the
    share of uses that take the mirrored latents, 0 where there are none.
    """

    name: str = ""
    weight: float = 1.0
    captions: tuple[float, ...] = (1.0,)
    flipped: float = 0.0

    def __post_init__(self) -> None:
        where = f"dataset {self.name}: " if self.name else ""
        for holds, mistake in (
            (0 < self.weight < math.inf, f"{where}weight {self.weight} must be above 0. Leave out what is not used."),
            (len(self.captions) > 0, f"{where}needs a text dataset."),
            (
                all(0 < weight < math.inf for weight in self.captions),
                f"{where}the weights of captions {list(self.captions)} must be above 0. Leave out what is not used.",
            ),
            (0 <= self.flipped <= 1, f"{where}flipped {self.flipped} is no share. Use a number from 0 to 1."),
        ):
            if not holds:
                raise UserError(mistake)

    @property
    def exact_weight(self) -> Fraction:
        """The weight as the decimal number that was written, so that 0.1 is a tenth."""
        return Fraction(repr(self.weight))


@dataclass(frozen=True, slots=True)
class Policy:
    """How samples are put together.

    Either `global_batch` samples a step over all ranks, or as many as keep within `tokens_per_batch`, the other being
    0. Counted are true tokens, padding apart: of text (`text`), or of text and latents (`all`), where a token of a
    latent is `latent_patch` x `latent_patch` cells. With `shuffle_window` samples are shuffled within windows of so
    many; 0 shuffles all of the data.
    """

    global_batch: int = 256
    tokens_per_batch: int = 0
    tokens_counted: str = "all"
    latent_patch: int = 2
    shuffle_window: int = 0
    caption_drop: float = 0.0  # share of uses whose caption is replaced by the null embedding
    datasets: tuple[Share, ...] = (Share(),)

    def __post_init__(self) -> None:
        for holds, mistake in (
            (
                self.global_batch >= 1 or self.tokens_per_batch,
                f"--global-batch {self.global_batch} is too small. Use at least 1.",
            ),
            (self.tokens_per_batch >= 0, f"--tokens-per-batch {self.tokens_per_batch} is negative. Use 0 for none."),
            (
                not (self.global_batch and self.tokens_per_batch),
                "--global-batch and --tokens-per-batch are two ways to say how large a batch is. Give one.",
            ),
            (
                self.tokens_counted in TOKENS_COUNTED,
                f"--tokens-counted {self.tokens_counted} is unknown. Use one of {', '.join(TOKENS_COUNTED)}.",
            ),
            (self.latent_patch >= 1, f"a token of {self.latent_patch} latent cells is too small. Use at least 1."),
            (self.shuffle_window >= 0, f"--shuffle-window {self.shuffle_window} is negative. Use 0 for all the data."),
            (0 <= self.caption_drop <= 1, f"--caption-drop {self.caption_drop} is no share. Use 0 to 1."),
        ):
            if not holds:
                raise UserError(mistake)

    @property
    def digest(self) -> str:
        """xxh3-128 of the policy as canonical JSON."""
        return xxhash.xxh3_128_hexdigest(canonical_json(asdict(self)).encode())

    def describe(self) -> str:
        """The policy in one line, for people."""
        tokens = {"all": "latent and text", "text": "text"}[self.tokens_counted]
        parts = [
            f"batches of up to {self.tokens_per_batch:,} {tokens} tokens"
            if self.tokens_per_batch
            else f"batches of {self.global_batch:,} samples",
            f"shuffled in windows of {self.shuffle_window:,} samples" if self.shuffle_window else "shuffled as a whole",
            f"{self.caption_drop:g} of captions dropped",
        ]
        for share in self.datasets:
            captions = " : ".join(f"{weight:g}" for weight in share.captions)
            mixture = [f"{share.name} × {share.weight:g}"] if share.name else []
            mixture += [f"captions {captions}"] if len(share.captions) > 1 else []
            mixture += [f"{share.flipped:g} mirrored"] if share.flipped else []
            parts += [", ".join(mixture)] if mixture else []
        return "; ".join(parts)
