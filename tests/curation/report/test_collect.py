"""The numbers of the report against datasets whose every number is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.report.balance import Balance, Loss
from curation.report.collect import Corpus, collect
from curation.report.inputs import CorpusInputs
from schemas.errors import DatasetError, UserError


def collect_one(inputs: CorpusInputs) -> Corpus:
    (corpus,) = collect([inputs]).corpora
    return corpus


def test_every_step_of_the_funnel_adds_up(datasets: Any) -> None:
    report = collect_one(datasets.inputs)
    steps = {b.step: (b.rows_in, b.kept, {loss.reason: loss.rows for loss in b.losses}) for b in report.balances}
    assert steps == {
        "captions": (8, 6, {"corrupt": 1, "too_small": 1}),
        "usable": (6, 4, {"refusal": 1, "repetition": 1}),
        "latents": (8, 5, {"corrupt": 1, "non_finite": 1, "too_small": 1}),
        "text": (6, 4, {"unusable_caption": 2}),
        "joined": (6, 3, {"latents_without_text": 2, "text_without_latents": 1}),
        "nouns": (6, 6, {}),
    }
    assert all(b.rows_in == b.kept + b.lost for b in report.balances)


def test_losses_come_with_examples_out_of_the_rejects_tables(datasets: Any) -> None:
    report = collect_one(datasets.inputs)
    (corrupt, _) = report.balance("captions").losses
    assert [(e.shard, e.key, e.detail) for e in corrupt.examples] == [("s0", "d/k6", "JPEG <b>ends</b> early")]
    (refusal, _) = report.balance("usable").losses
    assert refusal.examples[0].detail == "I'm sorry, I cannot see it."


def test_captions_are_counted_by_status_flag_and_length(datasets: Any) -> None:
    found = collect_one(datasets.inputs).captions
    assert found is not None
    captions = found.numbers
    assert captions.statuses == {"ok": 3, "refusal": 1, "repetition": 1, "trimmed": 1}
    assert captions.flags == {"stock_opening": 1}
    assert captions.finish_reasons == {"stop": 5, "length": 1}
    assert (captions.rows, captions.usable, captions.with_raw, captions.t5_unknown) == (6, 4, 4, 1)
    assert captions.words is not None
    assert dict(captions.words.counts) == {3: 1, 6: 2, 7: 1}
    assert captions.raw_words is not None
    assert dict(captions.raw_words.counts) == {2: 2, 3: 1, 6: 1}
    assert captions.t5_tokens is not None
    assert captions.t5_tokens.share_above(77) == pytest.approx(2 / 3)
    assert captions.t5_tokens.share_above(120) == pytest.approx(1 / 3)


def test_features_are_weighed_and_bucketed(datasets: Any) -> None:
    report = collect_one(datasets.inputs)
    assert report.latents is not None
    assert report.text is not None
    assert report.latents.buckets == {"256x256": 4, "192x320": 1}
    assert report.latents.bucket_bytes == {"256x256": 4000, "192x320": 2000}
    assert report.latents.volume.per_sample == 1200
    assert report.latents.labelled == 1
    assert report.text.volume.content_bytes == 2480
    assert report.text.volume.disk_bytes == (datasets.text / "s0-00000.tar").stat().st_size
    assert report.text.truncated == 1
    assert report.text.tokens is not None
    assert report.text.tokens.mean == 62


def test_nouns_are_those_of_the_noun_findings(datasets: Any) -> None:
    nouns = collect_one(datasets.inputs).nouns
    assert nouns is not None
    rows = {(row.column, row.counted.value, row.captions): row for row in nouns.findings.rows}
    raw, made = rows["raw_caption", "NOUN+PROPN", 3], rows["caption", "NOUN+PROPN", 2]
    assert (raw.valid, raw.distinct, raw.nouns) == (0, 3, 3)
    assert (made.valid, made.distinct, made.nouns) == (1, 3, 13)
    assert nouns.columns == ("raw_caption", "caption")
    assert nouns.findings.comparison is not None


def test_nouns_per_caption_leave_out_rows_without_a_caption(datasets: Any) -> None:
    nouns = collect_one(datasets.inputs).nouns
    assert nouns is not None
    assert list(nouns.per_caption) == ["raw_caption", "caption"]
    assert dict(nouns.per_caption["caption"].nouns.counts) == {3: 1, 11: 1}
    assert dict(nouns.per_caption["caption"].distinct.counts) == {1: 2}


def test_every_filter_has_its_edge_and_counts_all_rows(datasets: Any) -> None:
    captions = collect_one(datasets.inputs).captions
    assert captions is not None
    edges = {edge.threshold.measure: edge for edge in captions.edges}
    assert all(edge.kept + edge.dropped + edge.unknown == 6 for edge in captions.edges)
    repetition = edges["repeated_4grams"]
    assert (repetition.kept, repetition.dropped) == (5, 1)
    assert [one.sample.key for one in repetition.just_dropped] == ["d/k4"]
    tokens = edges["n_t5_tokens"]
    assert [(one.value, one.sample.key) for one in tokens.just_kept] == [(90, "d/k1"), (8, "d/k0")]
    assert [(one.value, one.sample.key) for one in tokens.just_dropped] == [(130, "d/k3")]
    assert tokens.unknown == 3
    assert edges["compression"].unknown == 6  # no caption is long enough to be judged by it


def test_the_worst_are_found_by_status_and_measure(datasets: Any) -> None:
    captions = collect_one(datasets.inputs).captions
    assert captions is not None
    assert {status: [s.key for s in few] for status, few in captions.worst.unusable.items()} == {
        "refusal": ["d/k5"],
        "repetition": ["d/k4"],
    }
    assert captions.worst.repetition[0].sample.key == "d/k4"
    assert captions.worst.repetition[0].value == 0.4


def test_crops_tell_what_the_trainer_does_not_see(datasets: Any) -> None:
    latents = collect_one(datasets.inputs).latents
    assert latents is not None
    square, wide = latents.crops
    assert (square.bucket, square.samples, square.left_out, square.enlarged) == ("256x256", 4, 0.5, 0)
    assert (wide.bucket, wide.samples) == ("192x320", 1)
    assert [one.key for one in wide.shown] == ["d/k5"]
    assert wide.shown[0].flipped


def test_corpora_stand_side_by_side_under_their_names(datasets: Any) -> None:
    one = CorpusInputs("one", captions=str(datasets.captions))
    other = CorpusInputs("other", captions=str(datasets.captions), text=str(datasets.text))
    report = collect([one, other])
    assert [corpus.name for corpus in report.corpora] == ["one", "other"]
    assert report.corpora[0].captions == report.corpora[1].captions
    with pytest.raises(UserError, match="two corpora are called one"):
        collect([one, one])


def test_time_is_told_by_ledger_and_runs(datasets: Any) -> None:
    times = {time.stage: time for time in collect_one(datasets.inputs).times}
    caption = times["caption"]
    assert caption.phases == {"model": 6.0, "decode": 2.0}
    assert caption.worker_seconds == 8.0
    assert caption.rows_per_worker_second == 1.0
    assert [run.moment for run in caption.runs] == ["2025-06-11 08:15:00 UTC"]
    assert (caption.wall_seconds, caption.rows_per_second, caption.unreadable_runs) == (5.0, 1.6, 1)
    assert caption.limited_by.startswith("model (75%")
    assert times["latents"].retried == 1
    assert times["text"].rows_per_second is None


def test_header_facts_hold_settings_and_versions(datasets: Any) -> None:
    facts = {f.kind: f for f in collect_one(datasets.inputs).datasets}
    assert facts["captions"].config["model"] == "hub:a/b@c"
    assert facts["captions"].newest_run == "2025-06-11 09:15:00 UTC"
    assert facts["captions"].versions == {"latentmill": ("0.1.0",), "python": ("3.11.9",)}
    assert facts["nouns"].config["tagger.name"] == "small"


def test_the_same_samples_are_chosen_however_units_are_cut(write_captions: Callable[..., Path]) -> None:
    chosen = []
    for i, starts in enumerate([(0,), (0, 1, 2, 5), (0, 4)]):
        captions = collect_one(CorpusInputs(captions=str(write_captions(f"cut-{i}", starts)))).captions
        assert captions is not None
        chosen.append(captions.random)
    assert chosen[0] == chosen[1] == chosen[2]
    assert len(chosen[0]) == 6


def test_what_was_not_given_is_absent(datasets: Any) -> None:
    report = collect_one(CorpusInputs(text=str(datasets.text)))
    assert report.captions is report.latents is report.nouns is report.training is report.pictures is None
    assert [balance.step for balance in report.balances] == ["text"]
    assert report.samples is None


def test_a_stale_unit_is_named_and_left_out(datasets: Any) -> None:
    ledger = datasets.captions / "ledger" / "s0-00004.json"
    ledger.write_text(ledger.read_text().replace("f" * 32, "0" * 32))
    report = collect_one(CorpusInputs(captions=str(datasets.captions)))
    assert report.captions is not None
    assert report.captions.numbers.rows == 4
    assert "s0-00004: made under other settings" in report.notes[0]


def test_datasets_that_do_not_belong_together_are_noted(datasets: Any) -> None:
    info = datasets.text / "dataset.json"
    info.write_text(info.read_text().replace("captions:captions-id:caption", "captions:other:caption"))
    notes = collect_one(CorpusInputs(captions=str(datasets.captions), text=str(datasets.text))).notes
    assert notes == ("text: was made from captions:other:caption, not from these captions.",)


@pytest.mark.parametrize("change", [('"rows_in": 4', '"rows_in": 5'), ('"corrupt": 1', '"corrupt": 2')])
def test_a_ledger_that_does_not_add_up_gives_no_report(datasets: Any, change: tuple[str, str]) -> None:
    ledger = datasets.captions / "ledger" / "s0-00004.json"
    text = ledger.read_text()
    assert change[0] in text
    ledger.write_text(text.replace(*change))
    with pytest.raises(DatasetError) as error:
        collect_one(CorpusInputs(captions=str(datasets.captions)))
    assert "\n" not in str(error.value)


def test_a_table_with_other_rows_than_its_ledger_gives_no_report(datasets: Any) -> None:
    path = datasets.captions / "ledger" / "s0-00000.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"rows_in": 5, "rows_kept": 5}))
    with pytest.raises(DatasetError, match="the ledger counts 7 rows, the tables hold 6"):
        collect_one(CorpusInputs(captions=str(datasets.captions)))


def test_a_balance_that_does_not_hold_is_refused() -> None:
    with pytest.raises(DatasetError, match="10 rows in, but 7 kept \\+ 2 lost"):
        Balance("latents", "here", 10, 7, (Loss("corrupt", 2),))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nothing to report on"),
        ({"captions": "c", "shards": ("s",)}, "belong together"),
        ({"text": "t", "shards": ("s",), "source": "sam"}, "without --captions or --latents"),
        ({"text": "t", "measures": "m"}, "without --captions"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        CorpusInputs(**given)
