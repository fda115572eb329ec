"""Read samples out of the tars, straight into the memory of a batch; each is held against its checksum.

A sample whose bytes are wrong, or cannot be had, is reported as a `Fault` and does not stop the others: what is to be
done about it concerns all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.embedding import decode_embedding
from schemas.errors import DatasetError, SchemaError
from training.data.cache import Cache
from training.data.files import Files, Member, TooShortError, open_files
from training.data.manifest import Manifest, Places
from training.data.npy import npy_header, parse_npy
from training.data.text_form import stored_form

Layout = tuple[np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Sample number `at` of those asked for could not be read. `damaged`: its bytes are wrong, and will stay so."""

    at: int
    message: str
    damaged: bool


class Reader:
    """Reads latents and text by row of the manifest. Safe to call from many threads."""

    def __init__(self, manifest: Manifest, cache: Cache | None = None) -> None:
        self._manifest = manifest
        self._latents = _open(manifest.latents, cache)
        self._text = _open(manifest.text, cache)
        self.text_places = manifest.text
        self.text_form = stored_form(manifest.text, manifest.tokens, manifest.facts.dim)

    def latent_shape(self, bucket: int) -> tuple[int, int, int, int]:
        """Shape of the posterior's mean and standard deviation in a bucket: 2, C, h, w."""
        facts, (height_px, width_px) = self._manifest.facts, self._manifest.buckets[bucket]
        return 2, facts.channels, height_px // facts.downsample, width_px // facts.downsample

    def read_latents(self, rows: NDArray[np.int64], bodies: Sequence[memoryview]) -> list[Fault]:
        """Posterior mean and standard deviation of each row, unscaled: float16 [2, C, h, w], as bytes into `bodies`."""
        half = np.dtype("<f2")
        layouts = [(half, self.latent_shape(bucket)) for bucket in self._manifest.bucket[rows].tolist()]
        return self._read(self._latents, self._manifest.latents, rows, layouts, bodies)

    def read_text(self, rows: NDArray[np.int64], bodies: Sequence[memoryview]) -> list[Fault]:
        """T5 embedding of each row's caption, true tokens only, in `text_form`, as bytes into `bodies`."""
        layouts = [self.text_form.layout(tokens) for tokens in self._manifest.tokens[rows].tolist()]
        return self._read(self._text, self._manifest.text, rows, layouts, bodies)

    def latent(self, row: int) -> NDArray[np.float16]:
        """One posterior: float16 [2, C, h, w]. Raises `DatasetError` for what `read_latents` reports."""
        out = np.empty(self.latent_shape(int(self._manifest.bucket[row])), np.float16)
        _raise(self.read_latents(np.array([row]), [_bytes_of(out)]))
        return out

    def text(self, row: int) -> NDArray[np.float16]:
        """One embedding: float16 [N, D], whichever codec it is stored by. Raises `DatasetError` likewise."""
        dtype, shape = self.text_form.layout(int(self._manifest.tokens[row]))
        out = np.empty(shape, dtype)
        _raise(self.read_text(np.array([row]), [_bytes_of(out)]))
        return decode_embedding(out, self._manifest.name(row))

    def close(self) -> None:
        """Close the tars."""
        self._latents.close()
        self._text.close()

    def _read(
        self,
        files: Files,
        places: Places,
        rows: NDArray[np.int64],
        layouts: Sequence[Layout],
        bodies: Sequence[memoryview],
    ) -> list[Fault]:
        headers = [npy_header(*layout) for layout in layouts]
        file, offset, size, digest = (
            column[rows].tolist() for column in (places.file, places.offset, places.bytes, places.xxh64)
        )
        members = []
        for i, (header, body) in enumerate(zip(headers, bodies, strict=True)):
            fits = len(header) + len(body) == size[i]
            memory = (bytearray(len(header)), body) if fits else (bytearray(size[i]), memoryview(bytearray()))
            members.append(Member(file[i], offset[i], size[i], digest[i], *memory))
        faults = []
        for at, (member, error) in enumerate(zip(members, files.read(members), strict=True)):
            if (error is not None or not _intact(member)) and (error := files.read_again(member)) is None:
                error = None if _intact(member) else _MismatchError()
            if error is not None:
                faults.append(self._fault(at, places, int(rows[at]), error))
            elif member.head != headers[at]:
                message = self._take_odd(member, layouts[at], bodies[at], self._where(places, int(rows[at])))
                faults += [Fault(at, message, damaged=False)] * bool(message)
        return faults

    def _take_odd(self, member: Member, layout: Layout, body: memoryview, where: str) -> str:
        """Put an array that is stored in another form into `body`; what is wrong with it, empty if nothing is."""
        try:
            array = parse_npy(bytes(member.head) + bytes(member.body), where)
            array = array if (array.dtype, array.shape) == layout else decode_embedding(array, where)
        except (DatasetError, SchemaError) as error:
            return str(error)
        dtype, shape = layout
        if array.shape != shape or array.dtype != dtype:
            return f"{where}: {array.dtype} {array.shape}, expected {dtype} {shape}. Make it again."
        body[:] = _bytes_of(np.ascontiguousarray(array))
        return ""

    def _fault(self, at: int, places: Places, row: int, error: OSError) -> Fault:
        where, path = self._where(places, row), places.paths[places.file[row]]
        if not isinstance(error, TooShortError | _MismatchError):
            return Fault(at, f"{where}: {path} cannot be read ({error}). Check the storage.", damaged=False)
        what = str(error) or "they are not what its index says (xxh64)"
        mend = f"The file is damaged: delete it and run pipelines.{places.dataset.info.stage} again."
        return Fault(
            at, f"{where}: bytes {places.offset[row]}+{places.bytes[row]} of {path}: {what}. {mend}", damaged=True
        )

    def _where(self, places: Places, row: int) -> str:
        return f"{places.dataset.info.kind} of {self._manifest.name(row)}"


class _MismatchError(OSError):
    """The bytes are not what the index says."""


def _open(places: Places, cache: Cache | None) -> Files:
    return open_files(places.dataset.fs, places.paths, cache)


def _intact(member: Member) -> bool:
    digest = xxhash.xxh64(member.head)
    digest.update(member.body)
    return bool(digest.intdigest() == member.xxh64)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise DatasetError(faults[0].message)
