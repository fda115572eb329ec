"""How samples are put together into batches: what a run is never resumed under another of."""

from dataclasses import asdict, dataclass
from typing import Final

import xxhash

from schemas.errors import UserError
from schemas.record import canonical_json
from training.data.mixture import Share

TOKENS_COUNTED: Final = ("all", "text")


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
            mixture += [f"{share.flipped:g} flipped"] if share.flipped else []
            parts += [", ".join(mixture)] if mixture else []
        return "; ".join(parts)
