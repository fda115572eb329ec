import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from schemas.errors import DatasetError
from training.data.manifest import open_manifest
from training.data.randomness import sample_id

Write = Callable[..., Any]


def test_rows_are_joined_by_shard_and_key_and_sorted_by_them(write_features: Write) -> None:
    made = write_features(buckets={(64, 64): 9, (32, 96): 4})
    manifest = open_manifest(str(made.latents), str(made.text))
    names = [f"{shard}/{key}" for shard, key in sorted(made.names)]
    assert [manifest.name(row) for row in range(len(manifest))] == names
    assert manifest.sample.tolist() == [sample_id(*name) for name in sorted(made.names)]
    assert manifest.buckets == ((32, 96), (64, 64))
    assert np.bincount(manifest.bucket).tolist() == [4, 9]
    assert manifest.original_size[manifest.bucket == 0].tolist() == [[64, 192]] * 4
    assert manifest.label.tolist() == [-1] * 13
    assert manifest.unmatched == (0, 0)


def test_the_digest_depends_on_the_data_and_not_on_how_it_is_cut_into_units(write_features: Write) -> None:
    def digest(**options: Any) -> str:
        made = write_features(**options)
        return open_manifest(str(made.latents), str(made.text)).digest

    assert digest(folder="a") == digest(folder="b", unit_rows=(3, 12))
    assert digest(folder="c", seed=1) != digest(folder="d")


def test_a_changed_scaling_factor_changes_the_digest(write_features: Write) -> None:
    made = write_features()
    before = open_manifest(str(made.latents), str(made.text)).digest
    edit_facts(made.latents, scaling_factor=0.13025)
    assert open_manifest(str(made.latents), str(made.text)).digest != before


def test_samples_without_a_partner_are_an_error_that_names_the_first(write_features: Write) -> None:
    made = write_features(without_latents=(2,), without_text=(0, 4, 6, 8))
    expected = (
        r"4 latents have no text \(shard-0/folder/picture-0000, .*picture-0004, .*picture-0006, \.\.\.\), "
        r"and 1 texts no latents \(shard-0/folder/picture-0002\), of 12 samples"
    )
    with pytest.raises(DatasetError, match=expected):
        open_manifest(str(made.latents), str(made.text))


def test_samples_without_a_partner_are_left_out_when_allowed(write_features: Write) -> None:
    made = write_features(without_latents=(2,), without_text=(0, 4))
    manifest = open_manifest(str(made.latents), str(made.text), max_unmatched=0.25)
    assert len(manifest) == 9
    assert manifest.unmatched == (2, 1)
    with pytest.raises(DatasetError, match=r"--max-unmatched 0\.25"):
        open_manifest(str(made.latents), str(made.text), max_unmatched=0.24)


def test_data_sets_with_nothing_in_common_are_an_error(write_features: Write) -> None:
    made = write_features(without_latents=(0, 1, 2), without_text=tuple(range(3, 12)))
    for share in (0.0, 1.0):
        with pytest.raises(DatasetError, match="no sample in common"):
            open_manifest(str(made.latents), str(made.text), max_unmatched=share)


def test_a_null_embedding_other_than_the_named_one_is_an_error(write_features: Write) -> None:
    made = write_features()
    null = made.text / "null.text.npy"
    edit_facts(made.text, null_digest=xxhash.xxh3_128_hexdigest(null.read_bytes()))
    open_manifest(str(made.latents), str(made.text))
    np.save(null, np.load(null) + 1)
    with pytest.raises(DatasetError, match=r"not the null embedding that dataset\.json names") as caught:
        open_manifest(str(made.latents), str(made.text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 31), (0, 32), (32,)])
def test_a_null_embedding_of_another_shape_is_an_error(write_features: Write, shape: tuple[int, ...]) -> None:
    made = write_features()
    null = made.text / "null.text.npy"
    np.save(null, np.zeros(shape, np.float16))
    edit_facts(made.text, null_digest=xxhash.xxh3_128_hexdigest(null.read_bytes()))
    with pytest.raises(DatasetError, match=r"expected float16 \[N, 32\]"):
        open_manifest(str(made.latents), str(made.text))


def test_a_missing_null_embedding_is_an_error_that_names_the_stage(write_features: Write) -> None:
    made = write_features()
    (made.text / "null.text.npy").unlink()
    with pytest.raises(DatasetError, match=r"null\.text\.npy: cannot be read \(No such file.*pipelines\.text again"):
        open_manifest(str(made.latents), str(made.text))


def test_a_unit_that_was_planned_but_not_made_is_an_error(write_features: Write) -> None:
    made = write_features()
    next((made.text / "ledger").glob("*.json")).unlink()
    with pytest.raises(DatasetError, match="1 units are not usable"):
        open_manifest(str(made.latents), str(made.text))


def test_a_sample_that_occurs_twice_is_an_error(write_features: Write) -> None:
    made = write_features()
    ledger = made.text / "ledger"
    entry = json.loads((ledger / "unit-00000.json").read_text())
    (ledger / "unit-copy.json").write_text(json.dumps(entry | {"unit": "unit-copy"}))
    (made.text / "index" / "unit-copy.parquet").write_bytes((made.text / "index" / "unit-00000.parquet").read_bytes())
    with pytest.raises(DatasetError, match="5 samples occur more than once"):
        open_manifest(str(made.latents), str(made.text))


@pytest.mark.parametrize("fact", ["scaling_factor", "channels"])
def test_a_missing_fact_is_an_error_that_names_it(write_features: Write, fact: str) -> None:
    made = write_features()
    edit_facts(made.latents, **{fact: None})
    with pytest.raises(DatasetError, match=fact):
        open_manifest(str(made.latents), str(made.text))


def test_the_manifest_holds_arrays_and_no_python_object_a_sample(write_features: Write) -> None:
    made = write_features()
    manifest = open_manifest(str(made.latents), str(made.text))
    for field in dataclasses.fields(manifest):
        value = getattr(manifest, field.name)
        assert not isinstance(value, list | dict), field.name
    assert manifest.latents.file.dtype == np.int32
    assert manifest.text[0].xxh3.dtype == np.uint64


def edit_facts(dataset: Path, **facts: Any) -> None:
    path = dataset / "dataset.json"
    info = json.loads(path.read_text())
    info["facts"] |= facts
    path.write_text(json.dumps(info))
