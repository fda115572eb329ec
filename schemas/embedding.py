"""How a caption's embedding lies in its .npy member: float16 [N, D], or int8 with a scale per group of channels.

int8 is one structured array [N], a record a token: `scale`, float16 [G], and `levels`, int8 [D]. Channel d belongs to
group d // (D / G), and its value is levels[d] * scale[group]. numpy reads it without help from here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SchemaError


def int8_record(dim: int, groups: int) -> np.dtype[Any]:
    """The record of one token of width `dim` with `groups` scales; without padding, little-endian."""
    return np.dtype([("scale", "<f2", (groups,)), ("levels", "i1", (dim,))])


def decode_embedding(stored: NDArray[Any], where: str) -> NDArray[np.float16]:
    """The embedding, float16 [N, D], of a member's array, whichever of the two forms it has.

    A float16 array comes back as it is, of whatever shape. Raises `SchemaError`, naming `where`, for any other array.
    """
    if stored.dtype == np.float16:
        return stored
    fields: Any = stored.dtype.fields or {}
    if stored.ndim != 1 or set(fields) != {"scale", "levels"}:
        raise SchemaError(f"{where}: {stored.dtype} {stored.shape}, no embedding in float16 or int8. Make it again.")
    groups, dim = fields["scale"][0].shape, fields["levels"][0].shape
    if len(groups) != 1 or len(dim) != 1 or not groups[0] or dim[0] % groups[0]:
        raise SchemaError(f"{where}: {dim} channels do not fall into {groups} groups. Make it again.")
    if stored.dtype != int8_record(dim[0], groups[0]):
        raise SchemaError(f"{where}: {stored.dtype}, no int8 embedding. Make it again.")
    levels = stored["levels"].astype(np.float32).reshape(len(stored), groups[0], -1)
    levels *= stored["scale"].astype(np.float32)[:, :, None]
    return levels.reshape(len(stored), dim[0]).astype(np.float16)
