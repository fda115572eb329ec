import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dataset import DatasetInfo, InputIdentity, LedgerEntry, OutputFile, PlannedUnit, PlanRecord, RunFacts
from schemas.errors import SchemaError
from schemas.record import canonical_json, from_json, to_json

UNIT = PlannedUnit("a-00000", "a", 0, 3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNT = st.integers(0, 2**62)
JSON = st.recursive(
    st.none() | st.booleans() | COUNT | TEXT | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORDS = {
    LedgerEntry: st.builds(
        LedgerEntry,
        unit=TEXT,
        shard=TEXT,
        start=COUNT,
        stop=COUNT,
        fingerprint=TEXT,
        inputs=st.lists(st.builds(InputIdentity, TEXT, COUNT, TEXT, TEXT), max_size=2).map(tuple),
        rows_in=COUNT,
        rows_kept=COUNT,
        rejected=st.dictionaries(TEXT, COUNT, max_size=3),
        counts=st.dictionaries(TEXT, COUNT, max_size=3),
        outputs=st.lists(st.builds(OutputFile, TEXT, COUNT, TEXT, COUNT), max_size=2).map(tuple),
        run=st.builds(
            RunFacts,
            seconds=st.floats(0, 1e9),
            phases=st.dictionaries(TEXT, st.floats(0, 1e9), max_size=2),
            attempt=COUNT,
            host=TEXT,
            versions=st.dictionaries(TEXT, TEXT, max_size=2),
        ),
    ),
    DatasetInfo: st.builds(
        DatasetInfo,
        kind=TEXT,
        schema_version=COUNT,
        stage=TEXT,
        config=st.dictionaries(TEXT, JSON, max_size=3),
        fingerprint=TEXT,
        source=TEXT,
        dataset_id=TEXT,
        unit_rows=COUNT,
        facts=st.dictionaries(TEXT, JSON, max_size=3),
    ),
    PlanRecord: st.builds(
        PlanRecord,
        shards=st.lists(TEXT, max_size=3).map(tuple),
        units=st.lists(st.builds(PlannedUnit, TEXT, TEXT, COUNT, COUNT), max_size=3).map(tuple),
    ),
}


@given(st.one_of(*RECORDS.values()))
def test_a_record_comes_back_from_disk_as_it_went(record: Any) -> None:
    text = to_json(record)
    assert from_json(type(record), text, "x") == record
    assert from_json(type(record), text.encode(), "x") == record
    assert to_json(from_json(type(record), text, "x")) == text


def changed(**changes: Any) -> str:
    value = {**json.loads(to_json(UNIT)), **changes}
    return json.dumps({name: item for name, item in value.items() if item != "gone"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(rows=3), "x: unknown keys rows; known are name, shard, start, stop."),
        (changed(shard="gone", stop="gone"), "x: missing keys shard, stop."),
        (changed(start="0"), "x: start: expected int, found '0'."),
        (changed(start=0.0), "x: start: expected int, found 0.0."),
        (changed(start=True), "x: start: expected int, found True."),
        (changed(start=None), "x: start: expected int, found None."),
        (changed(name=7), "x: name: expected str, found 7."),
        ("[]", "x: expected an object, found []."),
        ("", "x: not valid JSON"),
        ('{"name": ', "x: not valid JSON"),
        ("[" * 100_000, "x: not valid JSON"),
        (b"\xff\xfe\xfa", "x: not valid JSON"),
        (bytes(64), "x: not valid JSON"),
    ],
)
def test_text_that_is_no_such_record_says_where_and_why(text: str | bytes, message: str) -> None:
    with pytest.raises(SchemaError) as error:
        from_json(PlannedUnit, text, "x")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_fault_deep_inside_is_named_by_its_path() -> None:
    text = json.dumps({"shards": [], "units": [{"name": "a", "shard": "a", "start": 0, "stop": "1"}]})
    with pytest.raises(SchemaError, match=r"^plan: units\[0\]: stop: expected int, found '1'\.$"):
        from_json(PlanRecord, text, "plan")


def test_whole_numbers_may_stand_for_floats_and_defaults_may_be_left_out() -> None:
    facts = from_json(RunFacts, '{"seconds": 1, "phases": {"a": 2}, "attempt": 1, "host": "", "versions": {}}', "x")
    assert isinstance(facts.seconds, float)
    assert isinstance(facts.phases["a"], float)
    info = DatasetInfo("k", 1, "s", {}, "f", "s", "i", 0)
    value = json.loads(to_json(info))
    del value["facts"], value["layout_version"]
    assert from_json(DatasetInfo, json.dumps(value), "x") == info


@given(JSON)
def test_canonical_json_has_one_spelling_of_a_value(value: Any) -> None:
    assert canonical_json(json.loads(json.dumps(value))) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match=r"JSON compliant"):
        canonical_json({"a": float("nan")})
