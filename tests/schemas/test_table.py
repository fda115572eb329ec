from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import SchemaError
from schemas.table import KIND_KEY, VERSION_KEY, Column, TableSchema
from schemas.tables import ALL_TABLES, CAPTIONS

TABLE = TableSchema(
    "things",
    3,
    (
        Column("key", pa.string(), "name"),
        Column("width", pa.int32(), "pixels"),
        Column("flags", pa.list_(pa.string()), "rules", nullable=True),
    ),
)


def drifted(*fields: tuple[str, pa.DataType], kind: bytes = b"things", version: bytes = b"3") -> pa.Schema:
    return pa.schema([pa.field(n, t) for n, t in fields], metadata={KIND_KEY: kind, VERSION_KEY: version})


GOOD = (("key", pa.string()), ("width", pa.int32()), ("flags", pa.list_(pa.string())))


def refusal(found: pa.Schema) -> str:
    with pytest.raises(SchemaError) as error:
        TABLE.check(found, "dir/a.parquet")
    message = str(error.value)
    assert message.startswith("dir/a.parquet: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("schema", ALL_TABLES, ids=lambda s: s.kind)
def test_what_is_written_is_read_back_as_declared(schema: TableSchema, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(schema.arrow.empty_table(), path)
    found = pq.read_schema(path)
    schema.check(found, "a")
    assert found.field(0).metadata[b"meaning"] == schema.columns[0].meaning.encode()


def test_every_kind_is_one_table() -> None:
    assert len({schema.kind for schema in ALL_TABLES}) == len(ALL_TABLES)


def test_the_order_of_columns_does_not_matter_to_a_reader() -> None:
    TABLE.check(drifted(*reversed(GOOD)), "a")


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ((("key", pa.null()), *GOOD[1:]), "key: null, expected string"),
        ((GOOD[0], ("width", pa.float64()), GOOD[2]), "width: double, expected int32"),
        ((GOOD[0], ("width", pa.int64()), GOOD[2]), "width: int64, expected int32"),
        ((("Key", pa.string()), *GOOD[1:]), "key: spelt Key"),
        (GOOD[1:], "key: missing"),
        ((*GOOD, ("extra", pa.int8())), "extra: not declared"),
        ((*GOOD, ("KEY", pa.string())), "KEY: not declared"),
        ((*GOOD, ("key", pa.string())), "key: 2 columns of this name"),
        ((GOOD[0], GOOD[1], ("flags", pa.list_(pa.int8()))), "flags: list<item: int8>, expected list<item: string>"),
    ],
)
def test_drifted_columns_are_named_with_what_was_expected(
    fields: tuple[tuple[str, pa.DataType], ...], difference: str
) -> None:
    message = refusal(drifted(*fields))
    assert f"columns differ from things v3: {difference}. " in message
    assert "Write the file again" in message


def test_all_differences_are_shown_at_once() -> None:
    message = refusal(drifted(("Width", pa.int32()), ("flags", pa.null())))
    assert "key: missing; width: spelt Width; flags: null, expected list<item: string>." in message


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (b"4", "v4, this latentmill reads v3; update latentmill"),
        (b"2", "v2, this latentmill reads v3; run the things stage again to renew it"),
        (b"three", "vthree, this latentmill reads v3; update latentmill"),
        (b"\xff", "this latentmill reads v3; update latentmill"),
    ],
)
def test_another_version_says_what_to_do(version: bytes, advice: str) -> None:
    assert advice in refusal(drifted(*GOOD, version=version))


def test_another_kind_is_named() -> None:
    assert "holds captions, expected things. Point at a things dataset." in refusal(CAPTIONS.arrow)


def test_a_file_of_another_program_is_said_to_be_one() -> None:
    assert "Is this a file of another program?" in refusal(pa.schema([("key", pa.string())]))
