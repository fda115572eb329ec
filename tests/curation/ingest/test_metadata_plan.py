"""What is planned from a metadata file: rows, units, counts, and when it is refused."""

import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.ingest.metadata_plan import (
    DownloadRow,
    MetadataPlan,
    PlanSettings,
    make_plan,
    read_unit,
    seen_in,
    stored_plan,
)
from curation.ingest.prefilter import Prefilter
from curation.ingest.seen_urls import SeenUrls
from curation.shards.target import Target
from schemas.errors import DatasetError, SchemaError, UserError

Write = Callable[..., str]
SETTINGS = PlanSettings(Prefilter(), {}, 3)


def laion(number: int, **changed: Any) -> dict[str, Any]:
    row = {"URL": f"http://x/{number}.jpg", "TEXT": f"text {number}", "WIDTH": 640.0, "similarity": 0.3}
    return row | {"hash": -(2**62) - number, "punsafe": 0.1} | changed


def rows_of(target: Target, part: str, plan: MetadataPlan) -> list[DownloadRow]:
    return [row for number in range(len(plan.units)) for row in read_unit(target, part, number)[1]]


def counts_of(plan: MetadataPlan) -> Counter[str]:
    return sum((Counter(unit.counts) for unit in plan.units), Counter())


def test_every_row_is_planned_once_in_order_under_its_number(target: Target, write_metadata: Write) -> None:
    plan = make_plan(target, write_metadata("part", [laion(i) for i in range(7)]), SETTINGS, SeenUrls())
    assert [unit.rows for unit in plan.units] == [3, 3, 1]
    rows = rows_of(target, "part", plan)
    assert [row.key for row in rows] == [f"{i:09d}" for i in range(7)]
    assert rows[4].url == "http://x/4.jpg"
    assert rows[4].caption == "text 4"


def test_what_the_metadata_say_goes_under_canonical_names(target: Target, write_metadata: Write) -> None:
    row = laion(0, mood="calm", tags=["a", "b"], nothing=None, odd=math.inf)
    plan = make_plan(target, write_metadata("part", [row]), SETTINGS, SeenUrls())
    assert rows_of(target, "part", plan)[0].told == {
        "url": "http://x/0.jpg",
        "caption": "text 0",
        "source_width": 640.0,
        "similarity": 0.3,
        "punsafe": 0.1,
        "hash": str(-(2**62)),
        "mood": "calm",
        "tags": ["a", "b"],
    }


def test_rows_that_are_dropped_are_counted_and_leave_the_keys_of_the_others(
    target: Target, write_metadata: Write
) -> None:
    rows = [
        laion(0, WIDTH=100.0),
        laion(1),
        laion(2, punsafe=None),
        laion(3, URL=None),
        laion(4, URL="file:///etc/passwd"),
        laion(5, URL="http://x/1.jpg"),
        laion(6, TEXT="x" * 70_000),
        laion(7),
    ]
    settings = PlanSettings(Prefilter(min_width=256, max_punsafe=0.5), {}, 3)
    plan = make_plan(target, write_metadata("part", rows), settings, SeenUrls())
    assert [row.key for row in rows_of(target, "part", plan)] == ["000000001", "000000007"]
    assert counts_of(plan) == {
        "metadata rows": 8,
        "dropped: width": 1,
        "dropped: punsafe_unknown": 1,
        "dropped: no_url": 2,
        "dropped: url_seen_before": 1,
        "dropped: bad_caption": 1,
    }


def test_the_counts_of_a_unit_are_of_the_metadata_up_to_its_last_row(target: Target, write_metadata: Write) -> None:
    rows = [laion(i, WIDTH=1.0 if i in (0, 5, 6, 7) else 640.0) for i in range(8)]
    plan = make_plan(target, write_metadata("part", rows), PlanSettings(Prefilter(min_width=2), {}, 3), SeenUrls())
    assert [unit.rows for unit in plan.units] == [3, 1]
    assert [unit.counts["metadata rows"] for unit in plan.units] == [4, 4]


def test_a_file_of_which_nothing_is_left_has_one_empty_unit_that_counts(target: Target, write_metadata: Write) -> None:
    settings = PlanSettings(Prefilter(min_width=1000), {}, 3)
    plan = make_plan(target, write_metadata("part", [laion(0)]), settings, SeenUrls())
    assert [(unit.rows, unit.counts["dropped: width"]) for unit in plan.units] == [(0, 1)]
    assert rows_of(target, "part", plan) == []


def test_a_url_of_an_earlier_file_is_not_downloaded_again(target: Target, write_metadata: Write) -> None:
    make_plan(target, write_metadata("part-0", [laion(0), laion(1)]), SETTINGS, SeenUrls())
    plan = make_plan(target, write_metadata("part-1", [laion(1), laion(2)]), SETTINGS, seen_in(target))
    assert [row.url for row in rows_of(target, "part-1", plan)] == ["http://x/2.jpg"]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (" http://x/a b.jpg ", "http://x/a%20b.jpg"),
        ("http://x/é.jpg?w=1&h=2#top", "http://x/%C3%A9.jpg?w=1&h=2#top"),
        ("http://x/a%20b.jpg", "http://x/a%20b.jpg"),
        ("HTTPS://X/a.jpg", "HTTPS://X/a.jpg"),
    ],
)
def test_urls_are_written_as_browsers_send_them(
    target: Target, write_metadata: Write, written: str, asked: str
) -> None:
    plan = make_plan(target, write_metadata("part", [laion(0, URL=written)]), SETTINGS, SeenUrls())
    assert [row.url for row in rows_of(target, "part", plan)] == [asked]


@pytest.mark.parametrize("text", ["", "  ", "x.jpg", "//x/y.jpg", "ftp://x/y.jpg", "http://", "http://[x/y.jpg"])
def test_what_is_no_web_address_is_dropped(target: Target, write_metadata: Write, text: str) -> None:
    plan = make_plan(target, write_metadata("part", [laion(0, URL=text)]), SETTINGS, SeenUrls())
    assert counts_of(plan)["dropped: no_url"] == 1


def test_columns_of_other_types_and_parts_with_other_types_read_the_same(target: Target, write_metadata: Write) -> None:
    as_float = write_metadata("a", [laion(0, WIDTH=300.0)])
    as_int = write_metadata("b", [laion(1, WIDTH=300)])
    as_text = write_metadata("c", [laion(2, WIDTH="300", URL=b"http://x/2.jpg")])
    as_null = write_metadata("d", [laion(3, TEXT=None)], pa.schema([("URL", pa.large_string()), ("TEXT", pa.null())]))
    settings = PlanSettings(Prefilter(min_width=256), {"source_width": "WIDTH"}, 3)
    for name, path in (("a", as_float), ("b", as_int), ("c", as_text)):
        assert rows_of(target, name, make_plan(target, path, settings, SeenUrls()))[0].told["source_width"] == 300
    (row,) = rows_of(target, "d", make_plan(target, as_null, SETTINGS, SeenUrls()))
    assert row.caption is None


def test_a_score_that_is_no_number_is_an_error_that_names_the_column(target: Target, write_metadata: Write) -> None:
    with pytest.raises(UserError, match=r"part\.parquet: similarity: string, expected numbers"):
        make_plan(target, write_metadata("part", [laion(0, similarity="high")]), SETTINGS, SeenUrls())


def test_a_file_that_is_no_parquet_is_told_in_one_line(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="not readable as Parquet"):
        make_plan(target, str(path), SETTINGS, SeenUrls())
    assert not list(Path(target.url).rglob("*part*"))


def test_a_file_that_is_damaged_within_is_told_in_one_line(target: Target, write_metadata: Write) -> None:
    path = Path(write_metadata("part", [laion(n) for n in range(9)]))
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(byte ^ 0x5A for byte in content[4:60])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not readable as Parquet [^\n]*$"):
        make_plan(target, str(path), SETTINGS, SeenUrls())


def test_a_text_that_is_not_utf8_is_told_with_its_column(target: Target, tmp_path: Path) -> None:
    latin1 = pa.array([b"caf\xe9"], pa.binary())
    caption = pa.StringArray.from_buffers(1, *latin1.buffers()[1:])
    pq.write_table(pa.table({"url": ["https://a.example/1.jpg"], "text": caption}), tmp_path / "part.parquet")
    with pytest.raises(UserError, match=r"part\.parquet: text: a text in it is not UTF-8"):
        make_plan(target, str(tmp_path / "part.parquet"), PlanSettings(Prefilter(), {}, 4), SeenUrls())


def test_a_stored_plan_is_found_again_and_survives_a_copy_of_the_metadata(
    target: Target, write_metadata: Write
) -> None:
    path = write_metadata("part", [laion(0)])
    assert stored_plan(target, path, SETTINGS) is None
    plan = make_plan(target, path, SETTINGS, SeenUrls())
    os.utime(path, (1, 1))
    assert stored_plan(target, path, SETTINGS) == plan


def test_metadata_that_changed_after_they_were_planned_are_refused(target: Target, write_metadata: Write) -> None:
    make_plan(target, write_metadata("part", [laion(0)]), SETTINGS, SeenUrls())
    with pytest.raises(DatasetError, match="changed since its downloads were planned"):
        stored_plan(target, write_metadata("part", [laion(1)]), SETTINGS)


def test_other_settings_than_those_of_the_plan_are_refused(target: Target, write_metadata: Write) -> None:
    path = write_metadata("part", [laion(0)])
    make_plan(target, path, SETTINGS, SeenUrls())
    with pytest.raises(DatasetError, match="planned under other settings"):
        stored_plan(target, path, PlanSettings(Prefilter(min_width=2), {}, 3))


def test_a_damaged_plan_is_told_with_what_to_do(target: Target, write_metadata: Write) -> None:
    path = write_metadata("part", [laion(0)])
    make_plan(target, path, SETTINGS, SeenUrls())
    Path(target.path("inputs/part.parquet")).write_bytes(b"PAR1")
    with pytest.raises(SchemaError, match=r"damaged .*Delete it and run again"):
        stored_plan(target, path, SETTINGS)
