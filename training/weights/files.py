"""Weights files: one safetensors file with the model's configuration inside, for sampling and for hand-off."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas.errors import SchemaError, StorageError, UserError
from schemas.record import canonical_json, from_json
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt

EMA_WEIGHTS: Final = "weights/ema.safetensors"
RAW_WEIGHTS: Final = "weights/raw.safetensors"
"""Where a run directory keeps its weights."""

METADATA_KEYS: Final = ("images_seen", "kind", "vae_scaling_factor", "vae_shift_factor")
"""What every weights file says beside the configuration. `kind` is ema or raw; the factors are those of the latents
that the model was trained on: it works on (posterior - shift) * scaling."""

_HEADER: Final = "latentmill"
_DIT_HEADER: Final = "latentmill-dit"


@dataclass(frozen=True, slots=True)
class _Header:
    """What a weights file says about itself, as JSON under the one key `_HEADER` of safetensors' metadata.

    One key, because safetensors writes several in random order, and the same weights should be the same bytes.
    """

    config: PixArtConfig
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class _DitHeader:
    """The same for the class-conditional DiT of stage 1, under `_DIT_HEADER`."""

    config: DitConfig
    metadata: dict[str, str]


def save_weights(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    config: PixArtConfig | DitConfig,
    metadata: Mapping[str, str],
) -> None:
    """Write the tensors, the configuration and `metadata` (all of `METADATA_KEYS`) to `path`, whole or not at all.

    Raises `StorageError` where it cannot be written, `ValueError` for missing metadata.
    """
    missing = [key for key in METADATA_KEYS if key not in metadata]
    if missing:
        raise ValueError(f"weights metadata lacks {', '.join(missing)}")
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    name = _DIT_HEADER if isinstance(config, DitConfig) else _HEADER
    header = canonical_json({"config": dataclasses.asdict(config), "metadata": dict(metadata)})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, {name: header})
        sync(partial)
        os.replace(partial, target)
        sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{target}: weights cannot be written ({_one_line(error)}). Free space or check it."
        ) from None
    finally:
        with contextlib.suppress(OSError):  # of a place that is no directory
            partial.unlink(missing_ok=True)


def load_weights(path: str | os.PathLike[str]) -> tuple[PixArtConfig, dict[str, Tensor], dict[str, str]]:
    """Configuration, tensors (on the CPU) and metadata of a PixArt's weights file.

    Raises `UserError` if there is none, it is damaged, or it is no such file of this trainer.
    """
    facts, tensors = _read(path)
    if _HEADER not in facts and _DIT_HEADER in facts:
        raise UserError(
            f"{path}: holds a class-conditional DiT, not a PixArt. Make a PixArt of it with "
            f"`python -m pipelines.convert --reparameterise`."
        )
    header = from_json(_Header, _header(path, facts, _HEADER), f"{path}: metadata")
    _check_metadata(path, header.metadata)
    return header.config, tensors, header.metadata


def load_dit_weights(path: str | os.PathLike[str]) -> tuple[DitConfig, dict[str, Tensor], dict[str, str]]:
    """`load_weights` for a class-conditional DiT."""
    facts, tensors = _read(path)
    header = from_json(_DitHeader, _header(path, facts, _DIT_HEADER), f"{path}: metadata")
    _check_metadata(path, header.metadata)
    return header.config, tensors, header.metadata


def read_facts(path: str | os.PathLike[str]) -> tuple[PixArtConfig | DitConfig, dict[str, str]]:
    """Configuration and metadata of either's weights file, without its tensors. Raises `UserError` as the others do."""
    facts = _read(path, with_tensors=False)[0]
    if _DIT_HEADER in facts:
        dit = from_json(_DitHeader, facts[_DIT_HEADER], f"{path}: metadata")
        return dit.config, dit.metadata
    pixart = from_json(_Header, _header(path, facts, _HEADER), f"{path}: metadata")
    return pixart.config, pixart.metadata


def load_any_weights(
    path: str | os.PathLike[str],
) -> tuple[PixArtConfig | DitConfig, dict[str, Tensor], dict[str, str]]:
    """`load_weights` for either kind of model."""
    return load_dit_weights(path) if holds_dit(path) else load_weights(path)


def parameters_in(path: str | os.PathLike[str]) -> int:
    """How many numbers a weights file holds. Raises `UserError` if it is no readable safetensors."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({_one_line(error)}). Copy or export it again."
        ) from None


def holds_dit(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a class-conditional DiT's weights file. Raises `UserError` if it is no readable safetensors."""
    return _DIT_HEADER in _read(path, with_tensors=False)[0]


def _read(path: str | os.PathLike[str], with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file. Check the path, or wait for the run's first export.")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if with_tensors else []
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({_one_line(error)}). Copy or export it again."
        ) from None


def _header(path: str | os.PathLike[str], facts: Mapping[str, str], name: str) -> str:
    if name not in facts:
        raise UserError(f"{path}: no weights file of this trainer, by its metadata. Use the file that a run exported.")
    return facts[name]


def _check_metadata(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    missing = [key for key in METADATA_KEYS if key not in metadata]
    if missing:
        raise SchemaError(f"{path}: its metadata lacks {', '.join(missing)}. Use the file that a run exported.")


def load_model(path: str | os.PathLike[str], device: torch.device) -> tuple[PixArt, dict[str, str]]:
    """The model in a weights file, on `device` and in evaluation mode, and the file's metadata.

    Raises `UserError` as `load_weights` does, and if tensors are missing, unknown or of another shape.
    """
    config, tensors, metadata = load_weights(path)
    with torch.device("meta"):
        model = PixArt(config)
    _assign(model, tensors, path)
    return model.to(device).eval(), metadata


def load_dit_model(path: str | os.PathLike[str], device: torch.device) -> tuple[DiT, dict[str, str]]:
    """`load_model` for a class-conditional DiT."""
    config, tensors, metadata = load_dit_weights(path)
    with torch.device("meta"):
        model = DiT(config)
    _assign(model, tensors, path)
    return model.to(device).eval(), metadata


def _assign(model: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{path}: the tensors do not fit the configuration in the file ({_one_line(error)}). Export it again."
        ) from None


def sync(path: Path) -> None:
    """Bring what a file holds, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}…"
