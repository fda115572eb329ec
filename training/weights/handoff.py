"""From one stage's weights to the next stage's model, key by key; what became of each tensor is told.

    DiT -> DiT          copied
    DiT -> PixArt       `reparameterise`: copied, computed, and text's own layers drawn anew
    PixArt -> PixArt    copied; embedders of micro-conditions, the null caption and compression may be new

Any other difference between the tensors there are and those that are wanted is an error.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from schemas.errors import UserError
from training.data.sources import Facts
from training.diffusion.config import ObjectiveConfig, from_metadata
from training.models.config import DitConfig, PixArtConfig
from training.models.reading import Reading
from training.models.reparameterise import reparameterise
from training.run_directory import Begun
from training.stages import PIXEL
from training.weights.files import EMA_WEIGHTS, RAW_WEIGHTS, load_any_weights, read_facts

Config = PixArtConfig | DitConfig

_NULL: Final = "y_embedder.y_embedding"
_COMPUTED: Final = ("scale_shift_table", "t_block.", "pooled_embedder.")
_INHERITED: Final = ("modulation", "qk_norm", "compressed_layers", "compression")
_NAMED: Final = 3  # tensors that an error names


@dataclass(frozen=True, slots=True)
class Report:
    """What became of every tensor, by name."""

    path: str
    source: Config
    target: Config
    metadata: Mapping[str, str]
    copied: tuple[str, ...]
    computed: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people; the block's number stands as *."""
        kind, images = self.metadata["kind"], int(self.metadata["images_seen"])
        stage = self.metadata.get("stage") or "no stage"
        kinds = ["DiT" if isinstance(config, DitConfig) else "PixArt" for config in (self.source, self.target)]
        head = f"{self.path} ({kinds[0]}, {stage}, {kind}, after {images:,} images) to {kinds[1]}"
        counts = [f"{len(self.copied)} tensors copied", f"{len(self.computed)} computed", f"{len(self.new)} drawn anew"]
        counts += [f"{len(self.left_out)} left out"] if self.left_out else []
        out = [f"weights from {head}: {', '.join(counts)}"]
        for what, names in (("computed", self.computed), ("drawn anew", self.new), ("left out", self.left_out)):
            out += [f"  {what}: {', '.join(_grouped(names))}"] if names else []
        positions = [_positions(config) for config in (self.source, self.target)]
        out += [f"  positions: {positions[0]} before, {positions[1]} now"] if positions[0] != positions[1] else []
        return out

    def changes(self, objective: ObjectiveConfig, facts: Facts) -> list[str]:
        """Lines on what the weights were trained for and are not trained for any more."""
        before = from_metadata(self.metadata, self.path)
        out = [f"  they predicted {before}, now {objective}"] if before != objective else []
        before_and_now = (
            ("scaled", float(self.metadata["vae_scaling_factor"]), facts.scaling_factor),
            ("shifted", float(self.metadata["vae_shift_factor"]), facts.shift_factor),
        )
        return out + [
            f"  their latents were {done} by {was:g}, now by {now:g}: of another VAE?"
            for done, was, now in before_and_now
            if was != now
        ]


@dataclass(frozen=True, slots=True)
class Start:
    """Weights to start from, by what their file says of itself; or once it is gone, by what their run recorded."""

    path: Path
    config: Config
    stage: str  # that made them; empty if nobody says
    recorded: str = ""  # the digest of a file that is gone
    about: str = ""  # of one that is gone, what was given and what was recorded, for people

    @classmethod
    def of(cls, given: Path, kind: str, begun: Begun | None = None) -> "Start":
        """The weights in the file `given`; or in the run directory `given`, those of `kind`: ema or raw.

        `begun` is what the run that is to go on was begun with, if there is one. It does not need the file any more:
        what it took from there is in its recipe and its checkpoints. Raises `UserError` if there are none, and no such
        run, or one that started from none.
        """
        inside = given / {"ema": EMA_WEIGHTS, "raw": RAW_WEIGHTS}[kind]
        path = inside if given.is_dir() else given
        if path.is_file():
            config, metadata = read_facts(path)
            return cls(path, config, metadata.get("stage") or (PIXEL if isinstance(config, DitConfig) else ""))
        if begun is None:
            raise UserError(f"--init-from {path}: no such file. Check the path, or wait for the first checkpoint.")
        recipe = begun.recipe
        if not recipe.init_digest:
            raise UserError(
                f"--init-from {path}: no such file, and this run was begun from random weights. Leave it out to go on."
            )
        about = f"{given} is gone, and this run goes on without it"
        if begun.init_from and begun.init_from not in (str(given), str(inside)):
            about = (
                f"--init-from {given}: no such file; this run was begun from {begun.init_from} ({recipe.init_digest}), "
                f"which it does not need any more, and goes on"
            )
        # Its model has inherited what there was to inherit; of a DiT, a PixArt inherits nothing.
        config = DitConfig() if recipe.reading is not None else recipe.model
        return cls(Path(begun.init_from or given), config, "", recipe.init_digest, about)

    def inherited(self, target: PixArtConfig) -> PixArtConfig:
        """`target` with the options that a PixArt keeps from these weights, as no flag sets them."""
        if not isinstance(self.config, PixArtConfig):
            return target
        target = replace(target, **{name: getattr(self.config, name) for name in _INHERITED})
        both_keep_null = self.config.null_caption == target.null_caption == "buffer"
        return replace(target, text_tokens=self.config.text_tokens) if both_keep_null else target


def hand_over(
    path: Path, fresh: Mapping[str, Tensor], target: Config, reading: Reading | None, seed: int
) -> tuple[dict[str, Tensor], Report]:
    """The state dict of a model of `target` that starts from the weights in `path`, float32; and the report.

    `fresh` is that model's state as it was drawn; `reading` and `seed` are those of `reparameterise`, which alone needs
    them. Raises `UserError`, naming the first tensors, unless all keys and shapes fit.
    """
    source, tensors, metadata = load_any_weights(path)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    computed: list[str] = []
    if isinstance(source, DitConfig) and isinstance(target, PixArtConfig):
        state = reparameterise(tensors, source, target, reading or Reading(), seed)
        computed = [name for name in state if name not in tensors and _is_computed(name, reading or Reading())]
        new, left_out = set(state) - set(tensors) - set(computed), set(tensors) - set(state)
    elif isinstance(target, DitConfig) and isinstance(source, PixArtConfig):
        raise UserError(f"{path}: holds a PixArt, and a DiT is trained on classes. Use weights of stage pixel.")
    else:
        if source.heads != target.heads:
            raise UserError(
                f"{path}: has {source.heads} heads, the model {target.heads}, which no tensor's shape tells. Use "
                f"weights of the same --model."
            )
        new, left_out = set(fresh) - set(tensors), set(tensors) - set(fresh)
        odd = [*(new - _may_be_new(fresh, source, target)), *(left_out - _may_be_left_out(target))]
        odd += [name for name in set(tensors) & set(fresh) if tensors[name].shape != fresh[name].shape]
        if odd:
            raise UserError(
                f"{path}: {len(odd)} tensors do not fit the model ({', '.join(sorted(odd)[:_NAMED])}). Use weights of "
                f"the same --model and data."
            )
        state = {name: tensors.get(name, tensor) for name, tensor in fresh.items()}
    copied = sorted(set(state) - new - set(computed))
    report = Report(
        path=str(path),
        source=source,
        target=target,
        metadata=metadata,
        copied=tuple(copied),
        computed=tuple(sorted(computed)),
        new=tuple(sorted(new)),
        left_out=tuple(sorted(left_out)),
    )
    return state, report


def _is_computed(name: str, reading: Reading) -> bool:
    if name.startswith("t_block.") and reading.shared == "fresh":
        return False
    return any(part in name for part in _COMPUTED)


def _may_be_new(fresh: Mapping[str, Tensor], source: Config, target: Config) -> set[str]:
    """Tensors that options of `target` add to a model of `source`."""
    if not isinstance(source, PixArtConfig) or not isinstance(target, PixArtConfig):
        return set()
    added = []
    if target.micro_conditions and not source.micro_conditions:
        added += ["csize_embedder.", "ar_embedder."]
    if target.null_caption == "buffer" and source.null_caption != "buffer":
        added += [_NULL]
    for layer in set(target.compressed_layers) - set(source.compressed_layers):
        added += [f"blocks.{layer}.attn.sr.", f"blocks.{layer}.attn.norm."]
    return {name for name in fresh if name.startswith(tuple(added))}


def _may_be_left_out(target: Config) -> set[str]:
    """The released null caption, where the empty string takes its place."""
    return {_NULL} if isinstance(target, PixArtConfig) and target.null_caption != "buffer" else set()


def _positions(config: Config) -> str:
    scale = config.position_scale if isinstance(config, PixArtConfig) else 1.0
    return f"{config.position_base} tokens a side, scale {scale:g}"


def _grouped(names: Iterable[str]) -> list[str]:
    """The names, each once with * for the block's number, and how many such there are."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        if parts[0] == "blocks":
            parts[1] = "*"
        short = ".".join(parts)
        counts[short] = counts.get(short, 0) + 1
    return [f"{name} × {count}" if count > 1 else name for name, count in counts.items()]
