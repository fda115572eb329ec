"""Read samples out of the tars, straight into the memory of a batch; each is held against its checksum.

A sample whose bytes are wrong, or cannot be had, is reported as a `Fault` and does not stop the others: what is to be
done about it concerns all ranks.
"""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.embedding import decode_embedding
from schemas.errors import DatasetError, SchemaError
from training.data.cache import Cache
from training.data.files import Files, Member, TooShortError
from training.data.manifest import Manifest, Places, Store
from training.data.npy import npy_header, parse_npy
from training.data.text_form import common_form

Layout = tuple[np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Sample number `at` of those asked for could not be read. `damaged`: its bytes are wrong, and will stay so."""

    at: int
    message: str
    damaged: bool


class Reader:
    """Reads latents and text by row of the manifest. Safe to use from many threads."""

    def __init__(self, manifest: Manifest, cache: Cache | None = None) -> None:
        self._manifest = manifest
        flipped = () if manifest.flipped is None else (manifest.flipped,)
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // (2 * (1 + len(flipped) + len(manifest.text)))
        self._latents = [(places, Files(places, cache, room)) for places in (manifest.latents, *flipped)]
        self._text = [(places, Files(places, cache, room)) for places in manifest.text]
        self.text_form = common_form(manifest)

    def latent_shape(self, bucket: int) -> tuple[int, int, int, int]:
        """Shape of the posterior's mean and standard deviation in a bucket: 2, C, h, w."""
        facts, (height_px, width_px) = self._manifest.facts, self._manifest.buckets[bucket]
        return 2, facts.channels, height_px // facts.downsample, width_px // facts.downsample

    def in_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The order in which `rows` lie on disk, as far as text in its first variant goes, or latents without text."""
        places = (*self._manifest.text, self._manifest.latents)[0]
        return np.lexsort((places.offset[rows], places.file[rows]))

    def read_latents(
        self, rows: NDArray[np.int64], flipped: NDArray[np.bool_], bodies: Sequence[memoryview]
    ) -> list[Fault]:
        """Posterior mean and standard deviation of each row, unscaled: float16 [2, C, h, w], as bytes into `bodies`.

        `flipped` takes those of the flipped picture.
        """
        half = np.dtype("<f2")
        layouts = [(half, self.latent_shape(bucket)) for bucket in self._manifest.bucket[rows].tolist()]
        return self._read(self._latents, flipped.astype(np.int8), rows, layouts, bodies)

    def read_text(
        self, rows: NDArray[np.int64], variants: NDArray[np.int8], bodies: Sequence[memoryview]
    ) -> list[Fault]:
        """T5 embedding of a caption variant of each row, true tokens only, in `text_form`, as bytes into `bodies`."""
        layouts = [self.text_form.layout(tokens) for tokens in self._manifest.tokens[rows, variants].tolist()]
        return self._read(self._text, variants, rows, layouts, bodies)

    def latent(self, row: int, flipped: bool = False) -> NDArray[np.float16]:
        """One posterior: float16 [2, C, h, w]. Raises `DatasetError` for what `read_latents` reports."""
        out = np.empty(self.latent_shape(int(self._manifest.bucket[row])), np.float16)
        _raise(self.read_latents(np.array([row]), np.array([flipped]), [_bytes_of(out)]))
        return out

    def text(self, row: int, variant: int = 0) -> NDArray[np.float16]:
        """One embedding: float16 [N, D], whichever codec it is stored by. Raises `DatasetError` likewise."""
        dtype, shape = self.text_form.layout(int(self._manifest.tokens[row, variant]))
        out = np.empty(shape, dtype)
        _raise(self.read_text(np.array([row]), np.array([variant], np.int8), [_bytes_of(out)]))
        return decode_embedding(out, self._manifest.name(row))

    def close(self) -> None:
        """Close the tars."""
        for _, files in (*self._latents, *self._text):
            files.close()

    def _read(
        self,
        features: Sequence[tuple[Places, Files]],
        which: NDArray[np.int8],
        rows: NDArray[np.int64],
        layouts: Sequence[Layout],
        bodies: Sequence[memoryview],
    ) -> list[Fault]:
        """Read row i of the feature number `which[i]`."""
        faults = []
        for number in sorted(set(which.tolist())):
            places, files = features[number]
            chosen = np.flatnonzero(which == number)
            at = chosen.tolist()
            headers = [npy_header(*layouts[i]) for i in at]
            members = _members(places, rows[chosen], headers, [bodies[i] for i in at])
            for i, header, member, error in zip(at, headers, members, files.read(members), strict=True):
                fault = self._check(i, int(rows[i]), places, files, member, error)
                if fault is None and member.head != header:
                    fault = self._take_odd(i, int(rows[i]), places, member, layouts[i], bodies[i])
                faults += [] if fault is None else [fault]
        return faults

    def _check(
        self, at: int, row: int, places: Places, files: Files, member: Member, error: OSError | None
    ) -> Fault | None:
        """What is wrong with a member that was read, or could not be; what is not as it should be is read once more."""
        if error is None and _intact(member):
            return None
        error = files.read_again(member)
        if error is None and _intact(member):
            return None
        where, path = self._where(places, row), places.paths[member.file]
        if error is not None and not isinstance(error, TooShortError):
            return Fault(at, f"{where}: {path} cannot be read ({error}). Check the storage.", damaged=False)
        what = f"bytes {member.offset}+{member.bytes} of {path}: {error or 'not what its index says (xxh3)'}."
        mend = f"The file is damaged: delete it and run pipelines.{_store(places, row).stage} again."
        return Fault(at, f"{where}: {what} {mend}", damaged=True)

    def _take_odd(
        self, at: int, row: int, places: Places, member: Member, layout: Layout, body: memoryview
    ) -> Fault | None:
        """Put an array that is stored in another form into `body`, if it can be."""
        where, (dtype, shape) = self._where(places, row), layout
        try:
            array = parse_npy(bytes(member.head) + bytes(member.body), where)
            array = array if (array.dtype, array.shape) == layout else decode_embedding(array, where)
        except (DatasetError, SchemaError) as error:
            return Fault(at, str(error), damaged=False)
        if (array.dtype, array.shape) != layout:
            message = f"{where}: {array.dtype} {array.shape}, expected {dtype} {shape}. Make it again."
            return Fault(at, message, damaged=False)
        body[:] = _bytes_of(np.ascontiguousarray(array))
        return None

    def _where(self, places: Places, row: int) -> str:
        return f"{_store(places, row).kind} of {self._manifest.name(row)}"


def _store(places: Places, row: int) -> Store:
    return places.stores[places.owner[places.file[row]]]


def _members(
    places: Places, rows: NDArray[np.int64], headers: Sequence[bytes], bodies: Sequence[memoryview]
) -> list[Member]:
    """Where the features of `rows` lie, and the memory for each: its own where the size is not the one expected."""
    file, offset, size, digest = (
        column[rows].tolist() for column in (places.file, places.offset, places.bytes, places.xxh3)
    )
    members = []
    for i, (header, body) in enumerate(zip(headers, bodies, strict=True)):
        fits = len(header) + len(body) == size[i]
        memory = (bytearray(len(header)), body) if fits else (bytearray(size[i]), memoryview(bytearray()))
        members.append(Member(file[i], offset[i], size[i], digest[i], *memory))
    return members


def _intact(member: Member) -> bool:
    digest = xxhash.xxh3_64(member.head)
    digest.update(member.body)
    return bool(digest.intdigest() == member.xxh3)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise DatasetError(faults[0].message)
