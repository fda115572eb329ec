"""Read single samples out of the tars: one positioned read each, verified, parsed in place."""

import os
import resource
import threading
from typing import Any

import numpy as np
import xxhash
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from schemas.embedding import decode_embedding
from schemas.errors import DatasetError
from training.data.manifest import Manifest, Places
from training.data.npy import parse_npy


class Reader:
    """Reads latents and text by row of the manifest. Safe to call from many threads."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._latents, self._text = _Files(manifest.latents), _Files(manifest.text)

    def latent(self, row: int) -> NDArray[np.float16]:
        """Posterior mean and standard deviation, unscaled: float16 [2, C, h, w]."""
        facts = self._manifest.facts
        height_px, width_px = self._manifest.buckets[self._manifest.bucket[row]]
        shape = 2, facts.channels, height_px // facts.downsample, width_px // facts.downsample
        return self._read(self._latents, row, shape)

    def text(self, row: int) -> NDArray[np.float16]:
        """T5 embedding of the caption, true tokens only: float16 [N, D], whichever codec it is stored by."""
        return self._read(self._text, row, (int(self._manifest.tokens[row]), self._manifest.facts.dim))

    def close(self) -> None:
        """Close the tars."""
        self._latents.close()
        self._text.close()

    def _read(self, files: "_Files", row: int, shape: tuple[int, ...]) -> NDArray[np.float16]:
        places = files.places
        where = f"{places.dataset.info.kind} of {self._manifest.name(row)}"
        try:
            content = files.read(row)
        except OSError as error:
            raise DatasetError(f"{where}: {files.path(row)} cannot be read ({error}). Check the storage.") from None
        if xxhash.xxh64_intdigest(content) != places.xxh64[row]:
            raise DatasetError(
                f"{where}: bytes {places.offset[row]}+{places.bytes[row]} of {files.path(row)} are not what its index "
                f"says (xxh64). The file is damaged: delete it and run pipelines.{places.dataset.info.stage} again."
            )
        array = decode_embedding(parse_npy(content, where), where)
        if array.shape != shape or array.dtype != np.float16:
            raise DatasetError(f"{where}: {array.dtype} {array.shape}, expected float16 {shape}. Make it again.")
        return array


class _Files:
    """The tars of one data set. Local ones stay open while half of the process's file limit allows."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._local = isinstance(places.dataset.fs, LocalFileSystem)
        self._open: dict[int, int] = {}
        self._room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._lock = threading.Lock()

    def path(self, row: int) -> str:
        return self.places.paths[self.places.file[row]]

    def read(self, row: int) -> bytes:
        offset, length = int(self.places.offset[row]), int(self.places.bytes[row])
        if not self._local:
            remote: Any = self.places.dataset.fs
            return bytes(remote.cat_file(self.path(row), start=offset, end=offset + length))
        descriptor = self._descriptor(int(self.places.file[row]))
        if descriptor is not None:
            return os.pread(descriptor, length, offset)
        descriptor = os.open(self.path(row), os.O_RDONLY)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def _descriptor(self, file: int) -> int | None:
        """The open file, None once there is no room for another."""
        if file in self._open:
            return self._open[file]
        with self._lock:
            if file not in self._open and len(self._open) < self._room:
                self._open[file] = os.open(self.places.paths[file], os.O_RDONLY)
            return self._open.get(file)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
