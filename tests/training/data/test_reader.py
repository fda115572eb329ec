import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import fsspec
import numpy as np
import pytest
import xxhash

from schemas.embedding import int8_record
from schemas.errors import DatasetError
from training.data.manifest import Manifest, open_manifest
from training.data.npy import parse_npy
from training.data.reader import Reader

Write = Callable[..., Any]


@pytest.fixture
def manifest(write_features: Write) -> Manifest:
    made = write_features(buckets={(64, 64): 9, (32, 96): 4})
    return open_manifest(str(made.latents), str(made.text))


def test_samples_are_read_with_the_shape_of_their_bucket_and_their_true_length(manifest: Manifest) -> None:
    reader = Reader(manifest)
    for row in range(len(manifest)):
        height, width = manifest.buckets[manifest.bucket[row]]
        assert reader.latent(row).shape == (2, 4, height // 8, width // 8)
        assert reader.text(row).shape == (manifest.tokens[row], 32)
    reader.close()


def test_many_threads_read_what_one_does(manifest: Manifest) -> None:
    reader = Reader(manifest)
    rows = list(range(len(manifest))) * 20
    with ThreadPoolExecutor(8) as pool:
        for row, latent in zip(rows, pool.map(reader.latent, rows), strict=True):
            assert np.array_equal(latent, reader.latent(row))


def test_a_flipped_byte_is_an_error_that_names_shard_and_key(manifest: Manifest) -> None:
    row = 5
    path = manifest.text.paths[manifest.text.file[row]]
    with open(path, "r+b") as file:
        file.seek(int(manifest.text.offset[row]) + int(manifest.text.bytes[row]) - 1)
        byte = file.read(1)
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(DatasetError, match=rf"text of {manifest.name(row)}: .*xxh64"):
        Reader(manifest).text(row)
    Reader(manifest).latent(row)


def test_a_vanished_tar_is_an_error_that_names_shard_and_key(manifest: Manifest, tmp_path: Any) -> None:
    for path in tmp_path.rglob("latents/*.tar"):
        path.unlink()
    with pytest.raises(DatasetError, match=rf"latents of {manifest.name(3)}: .*cannot be read"):
        Reader(manifest).latent(3)


def test_files_beyond_the_open_file_limit_are_opened_for_each_read(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [Reader(manifest).text(row) for row in range(len(manifest))]
    monkeypatch.setattr("training.data.reader.resource.getrlimit", lambda _: (4, 4))
    reader = Reader(manifest)
    assert all(np.array_equal(reader.text(row), expected[row]) for row in range(len(manifest)))


def test_a_data_set_behind_a_url_reads_the_same(manifest: Manifest, write_features: Write) -> None:
    made = write_features(buckets={(64, 64): 9, (32, 96): 4}, folder="copy")
    memory = fsspec.filesystem("memory")
    memory.put(str(made.latents), "/reader/latents", recursive=True)
    memory.put(str(made.text), "/reader/text", recursive=True)
    remote = open_manifest("memory://reader/latents", "memory://reader/text")
    assert remote.digest == manifest.digest
    here, there = Reader(manifest), Reader(remote)
    for row in range(len(manifest)):
        assert np.array_equal(here.latent(row), there.latent(row))
        assert np.array_equal(here.text(row), there.text(row))


def test_text_stored_as_int8_is_read_as_float16(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    row, dim = 4, manifest.facts.dim
    stored = np.zeros(manifest.tokens[row], int8_record(dim, 2))
    stored["levels"], stored["scale"] = np.arange(dim) - 9, (0.5, 0.25)
    buffer = io.BytesIO()
    np.save(buffer, stored)
    content = buffer.getvalue()
    digests = np.full(len(manifest), xxhash.xxh64_intdigest(content), np.uint64)
    packed = replace(manifest, text=replace(manifest.text, xxh64=digests))
    monkeypatch.setattr("training.data.reader._Files.read", lambda self, row: content)
    text = Reader(packed).text(row)
    assert (text.dtype, text.shape) == (np.float16, (manifest.tokens[row], dim))
    assert np.array_equal(text[0], (np.arange(dim) - 9) * np.repeat([0.5, 0.25], dim // 2))


def test_parsing_agrees_with_numpy() -> None:
    for array in (np.arange(6, dtype=np.float16).reshape(1, 2, 3), np.zeros((0, 4), np.float16)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        assert np.array_equal(parse_npy(buffer.getvalue(), "here"), array)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04" + bytes(60)])
def test_what_is_no_npy_is_an_error_that_says_where(content: bytes) -> None:
    with pytest.raises(DatasetError, match=r"here: cannot be read as \.npy"):
        parse_npy(content, "here")


def test_a_cut_off_npy_is_an_error() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4), np.float16))
    with pytest.raises(DatasetError, match="cannot be read"):
        parse_npy(buffer.getvalue()[:-2], "here")
