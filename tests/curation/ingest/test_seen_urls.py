"""The set of URLs seen so far."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.seen_urls import SeenUrls, hash_urls


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=12))
def test_a_hash_is_new_exactly_once_however_it_is_cut_into_batches(batches: list[list[int]]) -> None:
    seen, plain = SeenUrls(), set()
    for batch in batches:
        expected = [value not in plain and not plain.add(value) for value in batch]
        assert seen.add(np.array(batch, np.uint64)).tolist() == expected
    assert len(seen) == len(plain)


def test_the_hash_is_of_the_utf8_bytes_and_has_64_bits() -> None:
    assert hash_urls(["a", "é"]).dtype == np.uint64
    assert hash_urls(["a"])[0] == 0xD24EC4F1A98C6E5B
