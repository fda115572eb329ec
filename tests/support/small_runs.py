"""A small PixArt's run, as `training.trainer.train` takes it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from training.config import EmaConfig, OptimiserConfig, Recipe, RunConfig
from training.data.manifest import Manifest
from training.data.mixture import Source
from training.data.policy import Policy
from training.models.config import PixArtConfig
from training.trainer import train

MODEL = PixArtConfig(depth=2, hidden=32, heads=2, caption_channels=32, text_tokens=12, position_base=4)
LEARN = OptimiserConfig(lr=1e-3, warmup_steps=2, clip=1.0)


def configured(manifest: Manifest, out: Path, steps: int = 6, **changes: Any) -> RunConfig:
    """Six steps of four samples, a line of metrics every second and a checkpoint every third."""
    recipe = Recipe(manifest.digest, MODEL, "", 0, Policy(4, caption_drop=0.1), "fp32", LEARN, EmaConfig())
    config = RunConfig(
        recipe=recipe,
        sources=(Source("", "latents", ("text",)),),
        out=str(out),
        max_unmatched=0.0,
        manifest_cache="",
        init_from="",
        steps=steps,
        micro_batch=4,
        device="cpu",
        threads=2,
        prefetch=2,
        log_every=2,
        save_every=3,
        keep_checkpoints=20,
        max_skipped=3,
    )
    return replace(config, **changes)


def run(config: RunConfig, manifest: Manifest) -> list[str]:
    """Train; what was said."""
    said: list[str] = []
    train(config, manifest, said.append)
    return said
