from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.clean_duplicates import is_repeated, load_repeated, read_rows, repeated_hashes, store_repeated
from curation.captions.quality_text import text_hash
from curation.shards.target import Target
from schemas.errors import DamagedFileError, DatasetError
from schemas.reading import Dataset
from schemas.tables import CAPTION_HASHES

HASH = st.one_of(st.integers(0, 5), st.integers(2**64 - 5, 2**64 - 1), st.integers(0, 2**64 - 1), st.none())


def hashes_dataset(units: list[list[int | None]]) -> Dataset:
    tables = [pa.table([unit], schema=CAPTION_HASHES.arrow) for unit in units]
    entries = [SimpleNamespace(rows_kept=len(unit)) for unit in units]
    fake: Any = SimpleNamespace(entries=entries, tables=lambda schema: iter(tables))
    return cast(Dataset, fake)


@given(st.lists(st.lists(HASH, max_size=12), max_size=4), st.integers(2, 5), st.integers(1, 50))
def test_repeated_hashes_are_those_that_counting_them_all_gives(
    units: list[list[int | None]], rows: int, at_once: int
) -> None:
    counts = Counter(value for unit in units for value in unit if value is not None)
    expected = sorted(value for value, count in counts.items() if count >= rows)
    assert repeated_hashes(hashes_dataset(units), rows, at_once).tolist() == expected


@given(st.lists(st.sampled_from(["A dog.", "a DOG", "A cat.", "", " . ", "A bird"]), max_size=8))
def test_texts_that_differ_in_case_and_punctuation_alone_are_the_same_and_empty_ones_are_nobodys(
    texts: list[str],
) -> None:
    repeated = np.array(sorted({h for h in map(text_hash, ["a dog", "A BIRD!"]) if h is not None}), np.uint64)
    assert is_repeated(texts, repeated) == [text in ("A dog.", "a DOG", "A bird") for text in texts]


def test_repeated_hashes_come_back_as_they_were_stored(tmp_path: Path) -> None:
    target = Target(str(tmp_path / "out"))
    store_repeated(target, np.array([1, 2**64 - 1], np.uint64))
    assert load_repeated(target).tolist() == [1, 2**64 - 1]


@pytest.mark.parametrize("content", [None, b"", b"not numpy at all"])
def test_repeated_hashes_that_are_lost_or_damaged_stop_the_worker(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "inputs" / "repeated.npy"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"Run pipelines\.clean again"):
        load_repeated(Target(str(tmp_path)))


def test_a_damaged_captions_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DamagedFileError, match=r"captions\.parquet: damaged Parquet"):
        read_rows(str(path))
