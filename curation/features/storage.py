"""How a feature lies on disk: float16 in an .npy member of the unit's tar, with its place in the unit's index."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from curation.shards.sinks import TarSink
from schemas.errors import SchemaError


def to_float16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16] | None:
    """`values` rounded to float16, or None if one is not finite or leaves float16's range (65,504)."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(np.float16)
    return rounded if np.isfinite(rounded).all() else None


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """`array` in the .npy format, version 1.0; same array, same bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def parse_member(content: bytes, where: str) -> npt.NDArray[Any]:
    """The array of an .npy member. Raises `SchemaError`, naming `where`, if it is none or not whole."""
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise SchemaError(f"{where}: no whole .npy ({error})") from None
    return array


def store(sink: TarSink, key: str, extension: str, array: npt.NDArray[Any]) -> dict[str, int]:
    """Append `array` as the member `key.extension`; the columns of the index that say where it is."""
    content = npy_bytes(array)
    offset, size = sink.add(key, extension, content)
    return {"offset": offset, "bytes": size, "xxh3": xxhash.xxh3_64_intdigest(content)}
