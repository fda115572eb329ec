import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import xxhash

from schemas.embedding import decode_embedding, int8_record
from schemas.errors import DatasetError
from training.data.cache import Cache
from training.data.manifest import Manifest, Places, open_manifest
from training.data.npy import npy_header, parse_npy
from training.data.reader import Reader
from training.data.text_form import TextForm

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
        assert reader.text(row).shape == (manifest.tokens[row, 0], 32)
    reader.close()


def test_many_threads_read_what_one_does(manifest: Manifest) -> None:
    reader = Reader(manifest)
    rows = list(range(len(manifest))) * 20
    with ThreadPoolExecutor(8) as pool:
        for row, latent in zip(rows, pool.map(reader.latent, rows), strict=True):
            assert np.array_equal(latent, reader.latent(row))


def damage(places: Places, row: int) -> None:
    """Flip a bit of the last byte of a sample."""
    with open(places.paths[places.file[row]], "r+b") as file:
        file.seek(int(places.offset[row]) + int(places.bytes[row]) - 1)
        byte = file.read(1)
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_flipped_bit_is_an_error_that_names_shard_and_key(manifest: Manifest) -> None:
    damage(manifest.text[0], 5)
    with pytest.raises(DatasetError, match=rf"text of {manifest.name(5)}: .*xxh3"):
        Reader(manifest).text(5)
    Reader(manifest).latent(5)


def test_a_vanished_tar_is_an_error_that_names_shard_and_key(manifest: Manifest, tmp_path: Path) -> None:
    for path in tmp_path.rglob("latents/*.tar"):
        path.unlink()
    with pytest.raises(DatasetError, match=rf"latents of {manifest.name(3)}: .*cannot be read"):
        Reader(manifest).latent(3)


def test_a_file_that_ends_too_soon_is_an_error_that_names_shard_and_key(manifest: Manifest) -> None:
    row = int(np.argmax(manifest.latents.offset))
    path = manifest.latents.paths[manifest.latents.file[row]]
    os.truncate(path, int(manifest.latents.offset[row]) + 200)
    with pytest.raises(DatasetError, match=rf"latents of {manifest.name(row)}: .*ends \d+ bytes too soon"):
        Reader(manifest).latent(row)


def test_faults_name_each_bad_sample_and_leave_the_others_read(manifest: Manifest) -> None:
    reader, rows = Reader(manifest), np.array([7, 2, 11])
    damage(manifest.text[0], 2)
    sizes = [int(manifest.tokens[row, 0]) * reader.text_form.token_bytes for row in rows]
    memory = [bytearray(size) for size in sizes]
    faults = reader.read_text(rows, np.zeros(len(rows), np.int8), [memoryview(part) for part in memory])
    assert [(fault.at, fault.damaged) for fault in faults] == [(1, True)]
    assert memory[0] == reader.text(7).tobytes()
    assert memory[2] == reader.text(11).tobytes()


def test_storage_that_does_not_answer_is_no_damage(manifest: Manifest, tmp_path: Path) -> None:
    for path in tmp_path.rglob("text/*.tar"):
        path.unlink()
    faults = Reader(manifest).read_text(
        np.array([3]), np.zeros(1, np.int8), [memoryview(bytearray(64 * int(manifest.tokens[3, 0])))]
    )
    assert [fault.damaged for fault in faults] == [False]


def test_files_beyond_the_open_file_limit_are_opened_for_each_read(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [Reader(manifest).text(row) for row in range(len(manifest))]
    monkeypatch.setattr("training.data.reader.resource.getrlimit", lambda _: (4, 4))
    reader = Reader(manifest)
    assert all(np.array_equal(reader.text(row), expected[row]) for row in range(len(manifest)))


def test_a_network_file_system_that_gives_less_than_asked_for_is_asked_again(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [Reader(manifest).latent(row) for row in range(len(manifest))]

    def little(descriptor: int, buffers: Any, offset: int) -> int:
        first = next(part for part in map(memoryview, buffers) if len(part))
        content = os.pread(descriptor, min(100, len(first)), offset)
        first[: len(content)] = content
        return len(content)

    monkeypatch.setattr("training.data.files.os.preadv", little)
    reader = Reader(manifest)
    assert all(np.array_equal(reader.latent(row), expected[row]) for row in range(len(manifest)))


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


def remote(write_features: Write, folder: str) -> Manifest:
    made = write_features(buckets={(64, 64): 9, (32, 96): 4}, folder=folder)
    memory = fsspec.filesystem("memory")
    memory.put(str(made.latents), f"/{folder}/latents", recursive=True)
    memory.put(str(made.text), f"/{folder}/text", recursive=True)
    return open_manifest(f"memory://{folder}/latents", f"memory://{folder}/text")


def read_all(reader: Reader, manifest: Manifest) -> list[bytes]:
    rows = np.random.default_rng(0).permutation(len(manifest))
    memory = [bytearray(int(manifest.tokens[row, 0]) * reader.text_form.token_bytes) for row in rows]
    assert reader.read_text(rows, np.zeros(len(rows), np.int8), [memoryview(part) for part in memory]) == []
    return [bytes(memory[i]) for i in np.argsort(rows)]


def test_neighbours_in_one_file_are_read_by_one_request(write_features: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = remote(write_features, "joined")
    expected = [Reader(manifest).text(row).tobytes() for row in range(len(manifest))]
    asked: list[tuple[str, int, int]] = []
    fs = manifest.text[0].stores[0].fs
    cat_ranges = fs.cat_ranges

    def counted(paths: list[str], starts: list[int], ends: list[int], **options: Any) -> Any:
        asked.extend(zip(paths, starts, ends, strict=True))
        return cat_ranges(paths, starts, ends, **options)

    monkeypatch.setattr(fs, "cat_ranges", counted)
    assert read_all(Reader(manifest), manifest) == expected
    assert len(asked) == len(manifest.text[0].paths) == 3


def test_what_is_in_the_cache_is_not_asked_for_again(
    write_features: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = remote(write_features, "cached")
    expected = read_all(Reader(manifest, Cache(tmp_path / "cache", 1 << 20)), manifest)
    monkeypatch.setattr(manifest.text[0].stores[0].fs, "cat_ranges", None)
    assert read_all(Reader(manifest, Cache(tmp_path / "cache", 1 << 20)), manifest) == expected


def test_a_damaged_object_in_the_cache_is_downloaded_again(write_features: Write, tmp_path: Path) -> None:
    manifest = remote(write_features, "healed")
    expected = read_all(Reader(manifest, Cache(tmp_path / "cache", 1 << 20)), manifest)
    for path in (tmp_path / "cache").glob("*/*"):
        path.write_bytes(bytes(path.stat().st_size))
    assert read_all(Reader(manifest, Cache(tmp_path / "cache", 1 << 20)), manifest) == expected
    assert not any(path.read_bytes() == bytes(path.stat().st_size) for path in (tmp_path / "cache").glob("*/*"))


def test_a_damaged_or_vanished_file_behind_a_url_is_reported_and_not_cached(
    write_features: Write, tmp_path: Path
) -> None:
    manifest = remote(write_features, "broken")
    memory, path = fsspec.filesystem("memory"), manifest.text[0].paths[manifest.text[0].file[0]]
    row = int(np.flatnonzero(manifest.text[0].file == manifest.text[0].file[0])[-1])
    content = bytearray(memory.cat_file(path))
    content[manifest.text[0].offset[row] + 130] ^= 1
    memory.pipe_file(path, bytes(content))
    reader = Reader(manifest, Cache(tmp_path / "cache", 1 << 20))
    with pytest.raises(DatasetError, match=rf"text of {manifest.name(row)}: .*xxh3"):
        reader.text(row)
    memory.pipe_file(path, bytes(content[: manifest.text[0].offset[row] + 130]))
    with pytest.raises(DatasetError, match="too soon"):
        reader.text(row)
    assert list((tmp_path / "cache").glob("*/*")) == []
    memory.rm_file(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        reader.text(row)


def test_text_stored_as_int8_is_told_by_its_size_and_read_as_float16(manifest: Manifest) -> None:
    packed = store_as(manifest, TextForm(manifest.facts.dim, 2))
    reader = Reader(packed)
    assert reader.text_form == TextForm(32, 2)
    for row in range(len(packed)):
        tokens = int(packed.tokens[row, 0])
        expected = (np.arange(32) - 9) * np.repeat([0.5, 0.25], 16)
        assert np.array_equal(reader.text(row), np.tile(expected, (tokens, 1)))


def store_as(manifest: Manifest, form: TextForm) -> Manifest:
    """The same manifest with other text: levels -9 and up, scales 0.5 and 0.25."""
    path, places = manifest.text[0].paths[0] + ".int8", []
    with open(path, "wb") as file:
        for tokens in manifest.tokens[:, 0].tolist():
            stored = np.zeros(*form.layout(tokens)[::-1])
            stored["levels"], stored["scale"] = np.arange(form.dim) - 9, (0.5, 0.25)
            start = file.tell()
            np.save(file, stored)
            places.append((start, file.tell() - start))
    with open(path, "rb") as file:
        content = file.read()
    offsets, sizes = np.array(places).T
    digests = [xxhash.xxh3_64_intdigest(content[start : start + size]) for start, size in places]
    text = replace(
        manifest.text[0],
        paths=(path,),
        owner=(0,),
        file=np.zeros(len(manifest), np.int32),
        offset=offsets,
        bytes=sizes,
        xxh3=np.array(digests, np.uint64),
    )
    return replace(manifest, text=(text,))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_decoding_packed_tokens_is_what_the_schema_says_to_the_bit(groups: int) -> None:
    rng, form = np.random.default_rng(groups), TextForm(32, groups)
    stored = np.zeros(50, form.layout(50)[0])
    stored["levels"] = rng.integers(-127, 128, (50, 32))
    stored["scale"] = np.exp(rng.normal(-6, 4, (50, groups))).clip(max=500)
    packed = torch.from_numpy(stored.view(np.uint8).reshape(5, 10, form.token_bytes))
    expected = decode_embedding(stored, "here")
    assert np.array_equal(form.decode(packed).reshape(50, 32).numpy(), expected)


def test_an_array_with_another_header_is_taken_if_it_is_the_same_and_refused_if_not(manifest: Manifest) -> None:
    tokens = int(manifest.tokens[0, 0])
    values = np.arange(tokens * 32, dtype=np.float16).reshape(tokens, 32)
    padded = npy_header(np.dtype("<f2"), (tokens, 32))[:-1] + b" " * 64 + b"\n"
    padded = padded[:8] + (len(padded) - 10).to_bytes(2, "little") + padded[10:]
    assert np.array_equal(Reader(with_member(manifest, padded + values.tobytes())).text(0), values)
    turned = npy_header(np.dtype("<f2"), (32, tokens))
    with pytest.raises(DatasetError, match=rf"float16 \(32, {tokens}\), expected float16 \({tokens}, 32\)"):
        Reader(with_member(manifest, turned + values.tobytes())).text(0)


def with_member(manifest: Manifest, content: bytes) -> Manifest:
    """The manifest with `content` as the text of row 0."""
    path = manifest.text[0].paths[0] + ".one"
    with open(path, "wb") as file:
        file.write(content)
    places = manifest.text[0]
    changed = {"file": len(places.paths), "offset": 0, "bytes": len(content)}
    changed["xxh3"] = xxhash.xxh3_64_intdigest(content)
    columns = {name: getattr(places, name).copy() for name in changed}
    for name, value in changed.items():
        columns[name][0] = value
    owner = (*places.owner, 0)
    text = replace(places, paths=(*places.paths, path), owner=owner, **columns)
    return replace(manifest, text=(text,))


@pytest.mark.parametrize("dtype", [np.dtype("<f2"), int8_record(32, 2)])
@pytest.mark.parametrize("shape", [(3,), (1, 2), (120, 4096), ()])
def test_headers_are_those_that_numpy_writes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.zeros(shape, dtype), version=(1, 0))
    header = npy_header(dtype, shape)
    assert buffer.getvalue()[: len(header)] == header
    assert len(buffer.getvalue()) - len(header) == np.zeros(shape, dtype).nbytes


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
