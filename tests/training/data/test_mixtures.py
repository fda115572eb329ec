"""Manifests of several data sets: caption variants, flipped latents, selections, mixtures, and the compiled files."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import DatasetError, StorageError
from schemas.selection import make_selection, write_selection
from training.data.manifest import Manifest, open_manifest, open_mixture
from training.data.mixture import Source

Write = Callable[..., Any]


def names(manifest: Manifest) -> list[str]:
    return [manifest.name(row) for row in range(len(manifest))]


def same_t5(one: Path, other: Path) -> None:
    """Give `other` the null embedding of `one`."""
    for name in ("null.text.npy", "dataset.json"):
        (other / name).write_bytes((one / name).read_bytes())


def flip(latents: Path) -> None:
    """Say that the pictures of a latents data set are flipped."""
    for path in (latents / "index").glob("*.parquet"):
        table = pq.read_table(path)
        position = table.schema.get_field_index("flipped")
        flipped = table.set_column(position, table.schema.field(position), pa.array([True] * len(table)))
        pq.write_table(flipped.cast(table.schema), path)
        ledger = latents / "ledger" / f"{path.stem}.json"
        entry = json.loads(ledger.read_text())
        for output in entry["outputs"]:
            if output["path"] == f"index/{path.name}":
                output["bytes"] = path.stat().st_size
        ledger.write_text(json.dumps(entry))


def test_caption_variants_of_the_same_latents_are_joined_and_what_lacks_one_is_counted(write_features: Write) -> None:
    one = write_features(folder="one", without_text=(1,))
    two = write_features(folder="two", seed=5, without_text=(3, 4), unit_rows=(4, 3))
    same_t5(one.text, two.text)
    manifest = open_mixture([Source("", str(one.latents), (str(one.text), str(two.text)))])
    assert names(manifest) == [f"{shard}/{key}" for shard, key in sorted(one.names)]
    assert manifest.tokens.shape == (12, 2)
    assert (manifest.tokens == 0).sum(axis=0).tolist() == [1, 2]
    assert [places.file[manifest.tokens[:, v] == 0].tolist() for v, places in enumerate(manifest.text)] == [
        [-1],
        [-1, -1],
    ]
    assert manifest.unmatched == (0, 0)
    assert "1 lack caption variant 1, their others are used; 2 lack caption variant 2" in manifest.describe()
    with pytest.raises(DatasetError, match="1 latents have no text"):
        open_manifest(str(one.latents), str(one.text))


def test_flipped_latents_are_joined_to_their_pictures(write_features: Write) -> None:
    made, mirrored = write_features(folder="plain"), write_features(folder="flipped", without_latents=(2,))
    flip(mirrored.latents)
    manifest = open_mixture([Source("", str(made.latents), (str(made.text),), str(mirrored.latents))])
    assert manifest.flipped is not None
    lacks = [name.endswith("0002") for name in names(manifest)]
    assert (manifest.flipped.file < 0).tolist() == lacks
    assert all(str(mirrored.latents) in path for path in manifest.flipped.paths)
    assert "1 lack flipped latents" in manifest.describe()
    assert manifest.digest != open_manifest(str(made.latents), str(made.text)).digest


def test_flipped_latents_that_are_not_flipped_or_of_other_buckets_are_an_error(write_features: Write) -> None:
    made, other = write_features(folder="plain"), write_features(folder="other", buckets={(32, 96): 12})
    with pytest.raises(DatasetError, match="its pictures are not flipped"):
        open_mixture([Source("", str(made.latents), (str(made.text),), str(made.latents))])
    flip(other.latents)
    with pytest.raises(DatasetError, match="shard-0/folder/picture-0000 has another bucket than its picture"):
        open_mixture([Source("", str(made.latents), (str(made.text),), str(other.latents))])


def test_a_selection_leaves_only_its_samples_and_names_the_digest(write_features: Write, tmp_path: Path) -> None:
    made = write_features(without_text=(4,))
    chosen = [made.names[i] for i in (0, 3, 8)]
    pairs = [*chosen, ("shard-0", "folder/never"), ("shard-9", "folder/picture-0000")]
    table = pa.table({"shard": [shard for shard, _ in pairs], "key": [key for _, key in pairs]})
    write_selection(str(tmp_path / "kept.parquet"), make_selection(table))
    manifest = open_manifest(str(made.latents), str(made.text), select=str(tmp_path / "kept.parquet"))
    assert names(manifest) == sorted(f"{shard}/{key}" for shard, key in chosen)
    assert (manifest.about.selected, manifest.about.absent) == (5, 2)
    assert manifest.unmatched == (0, 0)  # the latents that lack text are not selected
    assert "5 selected, 2 of them absent" in manifest.describe()
    assert manifest.digest != open_manifest(str(made.latents), str(made.text), 0.1).digest


def test_a_selection_of_other_pictures_is_an_error(write_features: Write, tmp_path: Path) -> None:
    made = write_features()
    table = pa.table({"shard": ["elsewhere"], "key": ["a"]})
    write_selection(str(tmp_path / "kept.parquet"), make_selection(table))
    with pytest.raises(DatasetError, match="hold none of the 1 selected samples"):
        open_manifest(str(made.latents), str(made.text), select=str(tmp_path / "kept.parquet"))


def test_a_dataset_of_which_nothing_is_left_is_an_error(write_features: Write, tmp_path: Path) -> None:
    made = write_features()
    table = pa.table({"shard": ["elsewhere"], "key": ["a"]})
    write_selection(str(tmp_path / "kept.parquet"), make_selection(table))
    urls = str(made.latents), (str(made.text),)
    with pytest.raises(DatasetError, match=r"dataset b: none of .* is left"):
        open_mixture([Source("a", *urls), Source("b", *urls, select=str(tmp_path / "kept.parquet"))])


def test_the_rows_of_a_mixture_follow_the_order_of_its_datasets(write_features: Write) -> None:
    one = write_features(folder="one", buckets={(64, 64): 5, (32, 96): 3})
    two = write_features(folder="two", seed=9, buckets={(96, 32): 4, (64, 64): 3})
    same_t5(one.text, two.text)
    sources = [Source(name, str(made.latents), (str(made.text),)) for name, made in (("b", one), ("a", two))]
    manifest = open_mixture(sources)
    assert manifest.about.starts == (0, 8, 15)
    assert names(manifest)[:8] == [f"{shard}/{key}" for shard, key in sorted(one.names)]
    assert names(manifest)[8:] == [f"{shard}/{key}" for shard, key in sorted(two.names)]
    assert manifest.buckets == ((32, 96), (64, 64), (96, 32))
    assert [(s.dataset, s.bucket, s.size) for s in manifest.population().strata] == [
        (0, 0, 3),
        (0, 1, 5),
        (1, 1, 3),
        (1, 2, 4),
    ]
    owners = {manifest.latents.stores[manifest.latents.owner[file]].url for file in manifest.latents.file[8:]}
    assert owners == {str(two.latents)}
    assert open_mixture(sources[::-1]).digest != manifest.digest


def test_data_sets_of_another_vae_or_t5_are_not_mixed(write_features: Write) -> None:
    one, two = write_features(folder="one"), write_features(folder="two", seed=9)
    sources = [Source(name, str(made.latents), (str(made.text),)) for name, made in (("a", one), ("b", two))]
    with pytest.raises(DatasetError, match="embeds the empty caption otherwise than"):
        open_mixture(sources)
    same_t5(one.text, two.text)
    info = json.loads((two.latents / "dataset.json").read_text())
    info["facts"]["scaling_factor"] = 0.13
    (two.latents / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(
        DatasetError, match=r"has scaling_factor 0\.18215, .* has 0\.13\. Use data sets of the same VAE"
    ):
        open_mixture(sources)


def test_a_compiled_manifest_is_found_again_and_made_anew_when_the_data_changes(
    write_features: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, cache = write_features(), tmp_path / "cache"
    fresh = open_manifest(str(made.latents), str(made.text), cache=cache)
    (kept,) = (path for path in cache.iterdir() if path.is_dir())
    with monkeypatch.context() as patched:
        patched.setattr("training.data.compilation._compile", lambda *_: pytest.fail("compiled again"))
        again = open_manifest(str(made.latents), str(made.text), cache=cache)
    assert (again.digest, names(again)) == (fresh.digest, names(fresh))
    assert np.array_equal(again.text[0].xxh3, fresh.text[0].xxh3)
    other = write_features(folder="other", seed=1)
    assert open_manifest(str(other.latents), str(other.text), cache=cache).digest != fresh.digest
    for name in ("about.json", "rows.bin", "names.arrow"):
        (kept / name).write_bytes(b"") if name == "rows.bin" else (kept / name).unlink()
        mended = open_manifest(str(made.latents), str(made.text), cache=cache)
        assert (mended.digest, names(mended)) == (fresh.digest, names(fresh))


def _digest(latents: str, text: str, cache: Path) -> str:
    return open_manifest(latents, text, cache=cache).digest


def test_processes_that_start_together_compile_once(write_features: Write, tmp_path: Path) -> None:
    made, cache = write_features(), tmp_path / "cache"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        digests = pool.starmap(_digest, [(str(made.latents), str(made.text), cache)] * 4)
    assert len(set(digests)) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_only_the_manifests_used_last_are_kept(write_features: Write, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for seed in range(6):
        made = write_features(folder=f"f{seed}", seed=seed)
        manifest = open_manifest(str(made.latents), str(made.text), cache=cache)
        assert len(names(manifest)) == 12
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 4


def test_a_cache_that_cannot_be_written_is_told_in_one_line(write_features: Write, tmp_path: Path) -> None:
    made = write_features()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--manifest-cache") as caught:
        open_manifest(str(made.latents), str(made.text), cache=tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_what_a_killed_process_left_half_made_is_removed(write_features: Write, tmp_path: Path) -> None:
    made, cache = write_features(), tmp_path / "cache"
    open_manifest(str(made.latents), str(made.text), cache=cache)
    (kept,) = (path for path in cache.iterdir() if path.is_dir())
    (cache / f"{kept.name}.abc.partial").mkdir()
    (kept / "names.arrow").unlink()
    open_manifest(str(made.latents), str(made.text), cache=cache)
    assert [path for path in cache.iterdir() if path.is_dir()] == [kept]


@pytest.mark.parametrize("damage", ["missing", "garbled"])
def test_an_index_that_cannot_be_read_is_an_error_that_names_it(write_features: Write, damage: str) -> None:
    made = write_features()
    index = made.text / "index" / "unit-00005.parquet"
    content = bytes(index.stat().st_size)
    opened_anyway = open_mixture([Source("", str(made.latents), (str(made.text),))])
    assert len(opened_anyway) == 12
    index.write_bytes(content)
    if damage == "missing":
        index.unlink()
        index.symlink_to("/nowhere")
    with pytest.raises(DatasetError, match=r"unit-00005") as caught:
        open_manifest(str(made.latents), str(made.text))
    assert "\n" not in str(caught.value)
