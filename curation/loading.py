"""Load a checkpoint whole, or say in one line why not. A weight that is missing is never made up."""

import json
import os
from typing import Any

from huggingface_hub import hf_hub_download
from safetensors import SafetensorError

from curation.checkpoints import Checkpoint
from curation.compute import DTYPES, Compute
from schemas.errors import UserError

_NAMED = 3


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's `config.json` as it is written, without any library's defaults."""
    try:
        if checkpoint.is_local:
            path = os.path.join(checkpoint.source, "config.json")
        else:
            path = hf_hub_download(checkpoint.source, "config.json", revision=checkpoint.revision)
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint.source}: config.json cannot be read ({_first_line(error)}).") from None
    if not isinstance(config, dict):
        raise UserError(f"{checkpoint.source}: config.json is not an object, so this is no checkpoint. Check the path.")
    return config


def load_model(cls: Any, checkpoint: Checkpoint, compute: Compute, dtype_argument: str) -> Any:
    """The model of class `cls`, all weights read from the checkpoint, in eval mode on the device.

    dtype_argument: what the library calls the type to load in. Raises `UserError` for files that are missing, damaged,
    or of another model, and for a device that has no room for it.
    """
    device = compute.require_device()
    where = {"revision": checkpoint.revision} if checkpoint.revision else {}
    try:
        model, info = cls.from_pretrained(
            checkpoint.source, output_loading_info=True, **{dtype_argument: DTYPES[compute.dtype]}, **where
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, SafetensorError) as error:
        raise UserError(
            f"{checkpoint.source}: cannot be loaded as {cls.__name__} ({_first_line(error)}). Is it whole?"
        ) from error
    faults = sorted(info["missing_keys"]) + sorted(str(key) for key in info.get("mismatched_keys", ()))
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise UserError(
            f"{checkpoint.source}: weights missing for {', '.join(faults[:_NAMED])}{more}; they would be random. "
            f"Get the checkpoint again."
        )
    try:
        return model.to(device).eval()
    except RuntimeError as error:  # OutOfMemoryError is one
        raise UserError(
            f"{checkpoint.source}: cannot be put on {compute.device} ({_first_line(error)}). Is there room? Use "
            f"a smaller model or --dtype, or a larger device."
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
