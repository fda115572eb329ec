"""The JSON: complete, versioned, and the same every time."""

import json
from typing import Any

from curation.report.collect import collect
from curation.report.inputs import CorpusInputs
from curation.report.record import RECORD_VERSION, render_json


def record_of(*inputs: CorpusInputs) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(render_json(collect(inputs)))
    return record


def test_the_numbers_are_in_the_json(datasets: Any) -> None:
    record = record_of(datasets.inputs)
    assert (record["format"], record["version"]) == ("latentmill.report", RECORD_VERSION)
    (corpus,) = record["corpora"]
    assert [b["rows_in"] - b["kept"] - b["lost"] for b in corpus["balances"]] == [0] * 6
    assert corpus["captions"]["numbers"]["words"]["counts"] == {"3": 1, "6": 2, "7": 1}
    assert corpus["latents"]["volume"]["per_sample"] == 1200
    assert corpus["latents"]["crops"][0]["left_out"] == 0.5
    assert {row["valid"] for row in corpus["nouns"]["rows"] if row["counted"] == "NOUN+PROPN"} >= {0, 1}
    assert corpus["nouns"]["paper"][2]["name"] == "SAM-LLaVA"
    assert corpus["nouns"]["per_caption"]["caption"]["distinct"]["mean"] == 1
    assert corpus["captions"]["edges"][0]["threshold"]["measure"] == "min_side"
    assert corpus["captions"]["outliers"]["shards"] == 1
    assert corpus["times"][0]["worker_seconds"] == 8.0


def test_pictures_are_told_without_their_bytes(datasets: Any) -> None:
    (corpus,) = record_of(datasets.inputs)["corpora"]
    found = {(one["key"], one["side_px"], one["cropped"]): one for one in corpus["pictures"]}
    assert found["d/k0", 256, False]["height_px"] == 128
    assert found["d/k4", 256, False]["problem"].startswith("not_an_image")
    assert "base64" not in json.dumps(corpus)


def test_corpora_come_in_their_order(datasets: Any) -> None:
    made = [CorpusInputs(name, captions=str(datasets.captions)) for name in ("b", "a")]
    assert [corpus["name"] for corpus in record_of(*made)["corpora"]] == ["b", "a"]
    assert record_of(*made)["corpora"][0]["pictures"] is None


def test_the_same_datasets_give_the_same_bytes(datasets: Any) -> None:
    assert render_json(collect([datasets.inputs])) == render_json(collect([datasets.inputs]))
