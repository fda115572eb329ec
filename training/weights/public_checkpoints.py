"""Files of public checkpoints: the official code's `.pth`, and directories of diffusers."""

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import PixArtTransformer2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from schemas.errors import StorageError, UserError
from training.diffusion.config import ObjectiveConfig
from training.diffusion.samplers import dpm_scheduler
from training.models.config import PixArtConfig
from training.models.diffusers_keys import diffusers_config, for_diffusers
from training.models.official import ALPHA_TOKENS, SIGMA_TOKENS
from training.sampling.prompts import load_tokenizer, text_width

ALPHA_VAE_SCALING: Final = 0.18215
SIGMA_VAE_SCALING: Final = 0.13025
_WEIGHTS: Final = "diffusion_pytorch_model.safetensors"
_PIPELINES: Final = {"PixArtAlphaPipeline": ALPHA_TOKENS, "PixArtSigmaPipeline": SIGMA_TOKENS}


@dataclass(frozen=True, slots=True)
class DiffusersModel:
    """What a directory of diffusers says of a PixArt. None: it does not say."""

    config: dict[str, Any]
    state: dict[str, Tensor]  # in diffusers' names
    text_tokens: int | None
    vae_scaling: float | None


def load_official(path: str | os.PathLike[str], *, ema: bool = False) -> dict[str, Tensor]:
    """The state dict in a `.pth` file: under `state_dict` (`state_dict_ema` with `ema`), or the file itself.

    Never runs code from the file. Raises `UserError` if there is none, or it holds anything else.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file. Check the path.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        # The first sentence alone: torch goes on to advise how to switch the protection off.
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: no file of weights alone ({reason}). Download it again.") from None
    name = "state_dict_ema" if ema else "state_dict"
    if isinstance(found, dict) and ("state_dict" in found or ema):
        if name not in found:
            raise UserError(f"{path}: has no {name}, only {', '.join(map(str, list(found)[:5]))}. Leave out --ema.")
        found = found[name]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path}: holds no state dict of tensors. Give the file of a PixArt or DiT.")
    return found


def save_official(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write a `.pth` with `state` under `state_dict`, whole or not at all. Raises `StorageError`."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Cloned, because a view would take the whole of its storage along.
        torch.save({"state_dict": {name: tensor.detach().clone() for name, tensor in state.items()}}, partial)
        os.replace(partial, target)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"{target}: cannot be written ({_first_line(error)}). Free space or check it.") from None
    finally:
        partial.unlink(missing_ok=True)


def load_diffusers(directory: str | os.PathLike[str]) -> DiffusersModel:
    """The PixArt in a pipeline's directory, or in a transformer's own. Raises `UserError` if there is none."""
    root = Path(directory)
    index, vae = _json(root / "model_index.json"), _json(root / "vae" / "config.json")
    place = root / "transformer" if (root / "transformer").is_dir() else root
    config = _json(place / "config.json")
    if config is None:
        raise UserError(f"{directory}: no PixArt of diffusers there (no readable config.json). Give its directory.")
    parts = _json(place / f"{_WEIGHTS}.index.json")
    listed = None if parts is None else parts.get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else [_WEIGHTS]
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state |= load_file(place / Path(name).name)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{place}: {Path(name).name} cannot be read ({_first_line(error)}). Download it again, as safetensors."
            ) from None
    scaling = (vae or {}).get("scaling_factor")
    return DiffusersModel(
        config=config,
        state=state,
        text_tokens=_PIPELINES.get(str((index or {}).get("_class_name"))),
        vae_scaling=float(scaling) if isinstance(scaling, int | float) else None,
    )


def save_pipeline(
    directory: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    config: PixArtConfig,
    *,
    vae_scaling: float,
    vae_shift: float,
    t5: str | None,
    vae: str | None,
    objective: ObjectiveConfig | None = None,
) -> tuple[str, ...]:
    """Write a directory that diffusers' PixArt pipelines open; lines for people on what is not in it.

    `t5` and `vae` are directories that are copied in; without them the pipeline's loader must be given these parts.
    `objective` is that of the training; None is plain epsilon.
    The pipeline is PixArt-Σ's for captions of 300 tokens, else PixArt-α's. The scheduler is that of `sampling.sample`,
    so that the same seed gives the same picture, but for three habits of the pipelines: they turn prompts to lower
    case, draw a batch's noise from one generator unless given one each, and with `use_resolution_binning` move sizes
    to the nearest of their tables.

    Raises `UserError` if the directory exists, for options that diffusers lacks, and for a T5 or a VAE other than those
    the model was trained with; `StorageError` where it cannot be written.
    """
    target = Path(directory)
    if target.exists():
        raise UserError(f"{target}: exists already. Name another directory, or remove it.")
    config, theirs, dropped = for_diffusers(config, state)
    _check_parts(config, vae_scaling, vae_shift, t5, vae)
    tokenizer = load_tokenizer(t5) if t5 else None
    notes = [dropped] if dropped else []
    name = "PixArtSigmaPipeline" if config.text_tokens == SIGMA_TOKENS else "PixArtAlphaPipeline"
    if config.text_tokens not in _PIPELINES.values():
        notes.append(
            f"{name} takes {_PIPELINES[name]} tokens unless called with max_sequence_length={config.text_tokens}"
        )
    parts: dict[str, Any] = {
        "_class_name": name,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "text_encoder": ["transformers", "T5EncoderModel"] if t5 else [None, None],
        "tokenizer": ["transformers", type(tokenizer).__name__] if t5 else [None, None],
        "vae": ["diffusers", "AutoencoderKL"] if vae else [None, None],
    }
    aside = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        _save_transformer(aside / "transformer", theirs, config)
        dpm_scheduler(objective or ObjectiveConfig()).save_pretrained(aside / "scheduler")
        if t5 and tokenizer is not None:
            _copy(Path(t5), aside / "text_encoder", ("model", "pytorch_model"))
            tokenizer.save_pretrained(aside / "tokenizer")
        if vae:
            _copy(Path(vae), aside / "vae", ("diffusion_pytorch_model",))
        (aside / "model_index.json").write_text(json.dumps(parts, indent=2, sort_keys=True) + "\n")
        aside.chmod(0o755)
        os.replace(aside, target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({_first_line(error)}). Free space or check it.") from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    for part, given in (("text encoder and tokenizer", t5), ("VAE", vae)):
        if not given:
            notes.append(f"no {part} in it: hand from_pretrained yours")
    return tuple(notes)


def _check_parts(config: PixArtConfig, vae_scaling: float, vae_shift: float, t5: str | None, vae: str | None) -> None:
    if vae_shift != 0:
        raise UserError(f"latents were shifted by {vae_shift:g}, which PixArt's pipelines cannot. Sample it here.")
    if t5 and text_width(t5) != config.caption_channels:
        raise UserError(
            f"{t5}: a T5 {text_width(t5)} wide, but the model takes text {config.caption_channels} wide. Give the T5 "
            f"that made its embeddings."
        )
    if t5 and not any(Path(t5).glob("*model*.safetensors")) and not any(Path(t5).glob("pytorch_model*.bin")):
        raise UserError(f"{t5}: no weights of a T5 there. Download it again.")
    if vae is None:
        return
    about = _json(Path(vae) / "config.json")
    if about is None or about.get("_class_name") != "AutoencoderKL":
        raise UserError(f"{vae}: no AutoencoderKL there, by its config.json. Give the directory of one.")
    if not any(Path(vae).glob("diffusion_pytorch_model*")):
        raise UserError(f"{vae}: no weights of a VAE there. Download it again.")
    if about.get("latent_channels") != config.in_channels:
        raise UserError(
            f"{vae}: {about.get('latent_channels')} latent channels, not {config.in_channels}. Give another."
        )
    if about.get("scaling_factor", ALPHA_VAE_SCALING) != vae_scaling:
        raise UserError(
            f"{vae}: scales latents by {about.get('scaling_factor')}, the model's were scaled by {vae_scaling:g}. Give "
            f"the VAE that made them."
        )


def _save_transformer(directory: Path, state: dict[str, Tensor], config: PixArtConfig) -> None:
    with torch.device("meta"):
        transformer = PixArtTransformer2DModel(**diffusers_config(config))
    transformer.load_state_dict(state, strict=True, assign=True)
    transformer.save_pretrained(directory)


def _copy(source: Path, target: Path, stems: tuple[str, ...]) -> None:
    """The configuration and the weights in `source`, as safetensors where it has both kinds, named by `stems`."""
    target.mkdir()
    shutil.copyfile(source / "config.json", target / "config.json")
    files = [file for stem in stems for file in sorted(source.glob(f"{stem}*"))]
    safe = [file for file in files if ".safetensors" in file.name]
    for file in safe or files:
        shutil.copyfile(file, target / file.name)


def _json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none, or it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
