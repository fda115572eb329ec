"""The embedding of the empty string: the null condition of classifier-free guidance, one file a text dataset.

It is made before the job, so that dataset.json can name its digest, and put in place by the workers, after dataset.json
and before any unit: whenever a job is killed, a null embedding of another T5 never stands beside current units.
"""

import dataclasses
import io
from dataclasses import dataclass

import numpy as np
import torch
import xxhash

from curation.checkpoints import Checkpoint
from curation.compute import Compute
from curation.features.storage import npy_bytes, to_float16
from curation.features.t5 import TextEncoder
from curation.shards.target import Target
from schemas.dataset import NULL_TEXT_FILE, DatasetInfo
from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class NullText:
    """The content of null.text.npy: float16 [N0, D]."""

    content: bytes

    @property
    def digest(self) -> str:
        """The xxh3-128 of the content, in hex."""
        return xxhash.xxh3_128(self.content).hexdigest()

    @property
    def tokens(self) -> int:
        """N0."""
        return int(np.load(io.BytesIO(self.content)).shape[0])


def embed_null(checkpoint: Checkpoint, compute: Compute, max_tokens: int) -> NullText:
    """Load the T5, embed the empty string, and give the memory back.

    Runs on the CPU where this process has no CUDA device: the driver of a cluster seldom has one, and one token is
    soon done.
    """
    if compute.device.startswith("cuda") and not torch.cuda.is_available():
        compute = dataclasses.replace(compute, device="cpu")
    encoder = TextEncoder(checkpoint, compute)
    (embedding,) = encoder.encode(encoder.tokens([""], max_tokens))
    encoder.close()
    null = to_float16(embedding)
    if null is None:
        raise UserError(
            f"{checkpoint.source}: its embedding of the empty string is not finite in float16. Use --dtype float32 or "
            f"bfloat16."
        )
    return NullText(npy_bytes(null))


def stored_null(target: Target, info: DatasetInfo) -> NullText | None:
    """The null embedding in `target`, if it is the one that its dataset.json names."""
    content = _read(target)
    null = NullText(content) if content is not None else None
    return null if null and null.digest == info.facts.get("null_digest") else None


def write_null(target: Target, null: NullText) -> None:
    """Put `null` in its place, unless it is there already."""
    if _read(target) != null.content:
        target.write_bytes(NULL_TEXT_FILE, null.content)


def _read(target: Target) -> bytes | None:
    path = target.path(NULL_TEXT_FILE)
    return bytes(target.fs.cat_file(path)) if target.fs.exists(path) else None
