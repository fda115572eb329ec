"""The .npy format, straight from bytes in memory: no file object, no copy."""

import ast
import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DatasetError

_MAGIC = b"\x93NUMPY"


def parse_npy(content: bytes | bytearray, where: str) -> NDArray[Any]:
    """The array in `content`, a view of it. Raises `DatasetError`, naming `where`, if it is no whole .npy."""
    try:
        length = int.from_bytes(content[8:10], "little") if content[6:7] == b"\x01" else -1
        if content[:6] != _MAGIC or length < 0:
            raise ValueError("not an .npy file of version 1")
        shape, dtype = _parse_header(bytes(content[10 : 10 + length]))
        return np.frombuffer(content, dtype, offset=10 + length).reshape(shape)
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise DatasetError(f"{where}: cannot be read as .npy ({error}). Make the data set again.") from None


@lru_cache(maxsize=4096)
def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """All that numpy writes before the data of an array in C order: magic, version 1.0, and the padded header."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@lru_cache(maxsize=4096)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    fields = ast.literal_eval(header.decode("latin1"))
    if fields["fortran_order"]:
        raise ValueError("Fortran order")
    return fields["shape"], np.dtype(fields["descr"])
