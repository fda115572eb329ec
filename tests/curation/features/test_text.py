import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
import webdataset
import xxhash
from transformers import AutoTokenizer, T5EncoderModel

from curation.checkpoints import resolve_checkpoint
from curation.execution.summary import JobSummary
from curation.features.null_text import write_null
from curation.features.read import read_features
from curation.features.t5 import TextEncoder, text_width
from curation.features.text import TextStage
from curation.shards.target import Target
from schemas.dataset import NULL_TEXT_FILE, REJECTS_DIR
from schemas.errors import UserError
from schemas.reading import open_dataset, read_info
from schemas.selection import make_selection
from schemas.tables import REJECTS

SENTENCE = "a red barn by the narrow river with two horses in a meadow and low hills behind them"
WORDS = SENTENCE.split()
TEXTS = [" ".join(WORDS[: 1 + (7 * i) % len(WORDS)]) for i in range(23)]

RunText = Callable[..., JobSummary]


@pytest.fixture
def stage(tiny: Any, tmp_path: Path) -> TextStage:
    checkpoint = resolve_checkpoint(str(tiny.t5), None)
    bare = TextStage(Target(str(tmp_path / "text")), checkpoint, text_width(checkpoint), max_tokens=12, batch_tokens=40)
    return bare.with_null(None)


def rows_of(url: str) -> list[tuple[dict[str, Any], Any]]:
    dataset = open_dataset(url, "text").require_whole()
    return [item for entry in dataset.entries for item in read_features(dataset, entry)]


def files_of(url: str) -> dict[str, bytes]:
    root = Path(url)
    kept = [p for p in root.rglob("*") if p.is_file() and p.relative_to(root).parts[0] not in {"ledger", "runs"}]
    return {str(p.relative_to(root)): p.read_bytes() for p in kept}


def test_embeddings_are_the_encoders_own_for_the_true_tokens_and_in_order(
    stage: TextStage, write_captions: Any, run_text: RunText, tiny: Any
) -> None:
    run_text(stage, write_captions({"s0-00000": TEXTS}))
    tokenizer, model = AutoTokenizer.from_pretrained(tiny.t5), T5EncoderModel.from_pretrained(tiny.t5).eval()
    rows = rows_of(stage.target.url)
    assert [row["key"] for row, _ in rows] == [f"folder/{i:04}" for i in range(23)]
    for (row, embedding), text in zip(rows, TEXTS, strict=True):
        whole = tokenizer(text).input_ids
        ids = tokenizer(text, truncation=True, max_length=12, return_tensors="pt").input_ids
        with torch.inference_mode():
            expected = model(input_ids=ids).last_hidden_state[0]
        assert embedding.dtype == np.float16
        assert embedding.shape == (min(len(whole), 12), 64) == (row["tokens"], 64)
        np.testing.assert_allclose(embedding, expected, rtol=2e-3, atol=1e-3)
        assert row["truncated"] == (len(whole) > 12)
        assert row["caption_xxh64"] == xxhash.xxh64_intdigest(text.encode())
        assert row["shard"] == "s0"


def test_truncation_is_counted(stage: TextStage, write_captions: Any, run_text: RunText) -> None:
    summary = run_text(stage, write_captions({"s0": ["a red barn", SENTENCE, SENTENCE]}))
    assert summary.counts["truncated"] == 2
    assert summary.counts["tokens"] == sum(row["tokens"] for row, _ in rows_of(stage.target.url))


def test_unusable_captions_are_rejected_with_a_reason_and_all_others_kept(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    rows = [
        "a barn",
        {"caption": "the the the", "status": "repetition"},
        {"caption": "two horses", "status": "trimmed"},
        {"caption": "", "status": "refusal"},
        {"caption": " ", "status": "ok"},
    ]
    summary = run_text(stage, write_captions({"s0": rows}))
    assert dict(summary.rejected) == {"unusable_caption": 2, "no_caption": 1}
    assert [row["key"] for row, _ in rows_of(stage.target.url)] == ["folder/0000", "folder/0002"]
    (rejects,) = open_dataset(stage.target.url, "text").tables(REJECTS, folder=REJECTS_DIR)
    assert rejects["detail"].to_pylist() == ["caption status repetition", "caption status refusal", "caption is empty"]


@pytest.mark.parametrize(("column", "kept"), [("raw_caption", [0, 2]), ("generated", [0, 1])])
def test_other_columns_are_judged_by_their_own_text_alone(
    stage: TextStage, write_captions: Any, run_text: RunText, column: Any, kept: list[int]
) -> None:
    rows = [
        {"raw_caption": "a barn", "generated": "the barn is red", "status": "repetition"},
        {"raw_caption": None, "generated": "horses"},
        {"raw_caption": "hills", "generated": "", "status": "empty"},
    ]
    summary = run_text(replace(stage, column=column), write_captions({"s0": rows}))
    assert summary.rejected["no_caption"] == 1
    assert [row["key"] for row, _ in rows_of(stage.target.url)] == [f"folder/{i:04}" for i in kept]


def test_of_a_selection_only_its_captions_are_embedded_and_their_own_faults_still_count(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    captions = write_captions({"s0-00000": TEXTS[:9], "s0-00001": TEXTS[9:12], "s1-00000": [{"status": "leak"}, "b"]})
    taken = [("s0", "folder/0003"), ("s0", "folder/0001"), ("s1", "folder/0000")]
    selection = make_selection(pa.table({"shard": [s for s, _ in taken], "key": [k for _, k in taken]}))
    summary = run_text(stage, captions, selection)
    assert dict(summary.rejected) == {"not_selected": 9 + 3 + 2 - 2 - 1 - 1, "unusable_caption": 1}
    assert [row["key"] for row, _ in rows_of(stage.target.url)] == ["folder/0001", "folder/0003", "folder/0001"]


def test_two_runs_write_the_same_bytes_however_units_are_told_apart(
    stage: TextStage, write_captions: Any, run_text: RunText, tmp_path: Path
) -> None:
    captions = write_captions({"s0-00000": TEXTS[:9], "s0-00001": TEXTS[9:], "s1-00000": TEXTS})
    run_text(stage, captions)
    again = replace(stage, target=Target(str(tmp_path / "again")))
    run_text(again, captions)
    first = files_of(stage.target.url)
    assert {"s0-00000.tar", "s0-00001.tar", "index/s1-00000.parquet", NULL_TEXT_FILE} <= set(first)
    assert first == files_of(again.target.url)


def test_long_units_go_window_by_window_without_losing_order(
    stage: TextStage, write_captions: Any, run_text: RunText, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.features.text._WINDOW_ROWS", 5)
    run_text(stage, write_captions({"s0": [*TEXTS[:7], {"status": "leak"}, *TEXTS[7:]]}))
    rows = rows_of(stage.target.url)
    expected = [xxhash.xxh64_intdigest(text.encode()) for text in TEXTS]
    assert [row["caption_xxh64"] for row, _ in rows] == expected


def test_batching_and_every_other_setting_that_moves_bits_is_in_the_fingerprint(stage: TextStage) -> None:
    changes: list[dict[str, Any]] = [{"batch_tokens": 41}, {"max_tokens": 13}, {"column": "generated"}]
    changes.append({"compute": replace(stage.compute, dtype="bfloat16")})
    assert len({replace(stage, **change).spec.fingerprint for change in [{}, *changes]}) == 5
    assert replace(stage, null=None, target=Target("/elsewhere")).spec.fingerprint == stage.spec.fingerprint


def test_the_null_embedding_is_that_of_the_empty_string_and_dataset_json_names_it(
    stage: TextStage, write_captions: Any, run_text: RunText, tiny: Any
) -> None:
    run_text(stage, write_captions({"s0": TEXTS}))
    content = (Path(stage.target.url) / NULL_TEXT_FILE).read_bytes()
    null = np.load(io.BytesIO(content))
    tokenizer, model = AutoTokenizer.from_pretrained(tiny.t5), T5EncoderModel.from_pretrained(tiny.t5).eval()
    with torch.inference_mode():
        expected = model(**tokenizer("", return_tensors="pt")).last_hidden_state[0]
    np.testing.assert_allclose(null, expected, rtol=2e-3, atol=1e-3)
    assert null.shape == (1, 64)
    assert null.dtype == np.float16
    info = read_info(stage.target.url)
    assert info is not None
    assert info.facts == {
        "dim": 64,
        "max_tokens": 12,
        "column": "caption",
        "dtype": "float16",
        "codec": "fp16",
        "null_tokens": 1,
        "null_digest": xxhash.xxh3_128(content).hexdigest(),
    }


def test_the_null_embedding_is_made_once_and_made_again_when_it_is_gone_or_damaged(
    stage: TextStage, write_captions: Any, run_text: RunText, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_text(stage, write_captions({"s0": TEXTS}))
    loads = []
    load = TextEncoder.__init__

    def counted(self: TextEncoder, *arguments: Any) -> None:
        loads.append(1)
        load(self, *arguments)

    monkeypatch.setattr(TextEncoder, "__init__", counted)
    info = read_info(stage.target.url)
    assert replace(stage, null=None).with_null(info).null == stage.null
    assert not loads
    null_file = Path(stage.target.url) / NULL_TEXT_FILE
    null_file.write_bytes(null_file.read_bytes()[:-2] + b"\0\0")
    mended = replace(stage, null=None).with_null(info)
    assert mended.null == stage.null
    assert loads == [1]
    assert mended.null is not None
    write_null(stage.target, mended.null)
    assert null_file.read_bytes() == mended.null.content


def test_the_null_embedding_of_other_settings_is_not_taken_over(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    run_text(stage, write_captions({"s0": TEXTS}))
    coarse = replace(stage, null=None, compute=replace(stage.compute, dtype="bfloat16"))
    assert coarse.with_null(read_info(stage.target.url)).null != stage.null


def test_a_second_run_does_nothing_and_changed_captions_are_due_again(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    captions = write_captions({"s0": TEXTS[:5], "s1": TEXTS[5:]})
    run_text(stage, captions)
    again = run_text(stage, captions)
    assert (again.units_done, again.units_current) == (0, 2)
    write_captions({"s0": TEXTS[:5], "s1": ["two horses", *TEXTS[6:]]})
    changed = run_text(stage, captions)
    assert (changed.units_done, changed.units_current, dict(changed.due)) == (1, 1, {"input changed": 1})
    hashes = [row["caption_xxh64"] for row, _ in rows_of(stage.target.url)]
    assert xxhash.xxh64_intdigest(b"two horses") in hashes


def test_a_deleted_output_redoes_its_unit_alone(stage: TextStage, write_captions: Any, run_text: RunText) -> None:
    captions = write_captions({"s0": TEXTS[:5], "s1": TEXTS[5:]})
    run_text(stage, captions)
    before = files_of(stage.target.url)
    (Path(stage.target.url) / "index" / "s0.parquet").unlink()
    repaired = run_text(stage, captions)
    assert (repaired.units_done, repaired.units_current) == (1, 1)
    assert files_of(stage.target.url) == before


def test_an_embedding_that_float16_cannot_hold_is_rejected_alone(
    stage: TextStage, write_captions: Any, run_text: RunText, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = TextEncoder.encode

    def spoilt(self: TextEncoder, batch: Any) -> Any:
        values = encode(self, batch)
        values[0][0, 0] = np.inf
        return values

    monkeypatch.setattr(TextEncoder, "encode", spoilt)
    summary = run_text(replace(stage, batch_tokens=10_000), write_captions({"s0": TEXTS}))
    assert dict(summary.rejected) == {"non_finite": 1}
    assert len(rows_of(stage.target.url)) == 22


def test_webdataset_reads_the_tars_and_the_index_points_at_the_npy(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    run_text(stage, write_captions({"s0": TEXTS}))
    tar = Path(stage.target.url) / "s0.tar"
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False))
    rows = rows_of(stage.target.url)
    assert [s["__key__"] for s in samples] == [row["key"] for row, _ in rows]
    content = np.memmap(tar, dtype=np.uint8, mode="r")
    for sample, (row, embedding) in zip(samples, rows, strict=True):
        member = content[row["offset"] : row["offset"] + row["bytes"]].tobytes()
        assert sample["text.npy"] == member
        np.testing.assert_array_equal(np.load(io.BytesIO(member)), embedding)


def test_captions_and_embeddings_can_both_lie_on_a_remote_file_system(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    captions = write_captions({"s0": TEXTS}, "memory://text-test/captions")
    remote = replace(stage, target=Target("memory://text-test/out"))
    assert run_text(remote, captions).rows_kept == 23
    assert len(rows_of("memory://text-test/out")) == 23
    fs = fsspec.filesystem("memory")
    assert stage.null is not None
    assert fs.cat_file(f"/text-test/out/{NULL_TEXT_FILE}") == stage.null.content
    fs.rm("/text-test", recursive=True)


def test_a_stage_travels_to_workers_by_pickle(stage: TextStage) -> None:
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_limits_that_leave_no_room_for_a_word_are_refused(stage: TextStage) -> None:
    with pytest.raises(UserError, match="--max-tokens 1"):
        replace(stage, max_tokens=1)
    with pytest.raises(UserError, match="--batch-tokens 0"):
        replace(stage, batch_tokens=0)


def test_a_unit_without_a_usable_caption_is_whole_and_empty(
    stage: TextStage, write_captions: Any, run_text: RunText
) -> None:
    summary = run_text(stage, write_captions({"s0": [{"status": "leak"}] * 3}))
    assert (summary.rows_in, summary.rows_kept, dict(summary.rejected)) == (3, 0, {"unusable_caption": 3})
    assert rows_of(stage.target.url) == []


def test_int8_is_close_takes_fewer_bytes_and_its_error_is_in_the_ledger(
    stage: TextStage, write_captions: Any, run_text: RunText, tmp_path: Path
) -> None:
    captions = write_captions({"s0": TEXTS[:9], "s1": TEXTS[9:]})
    whole = rows_of((run_text(stage, captions), stage.target.url)[1])
    small = replace(stage, codec="int8", target=Target(str(tmp_path / "int8")))
    assert small.spec.fingerprint != stage.spec.fingerprint
    summary = run_text(small, captions)
    assert set(summary.measures) == {"codec_mean_cosine", "codec_relative_l2", "codec_worst_token_l2"}
    for (row, values), (small_row, packed) in zip(whole, rows_of(small.target.url), strict=True):
        assert small_row["tokens"] == row["tokens"] == len(packed)
        assert small_row["bytes"] - 192 < 0.6 * (row["bytes"] - 128)  # without the .npy headers
        decoded = packed.astype(np.float32)
        relative = np.linalg.norm(decoded - values, axis=1) / np.linalg.norm(values.astype(np.float32), axis=1)
        assert relative.max() <= summary.measures["codec_worst_token_l2"][1] + 1e-3 < 0.02
    for dataset, most in ((stage.target.url, 5e-4), (small.target.url, 0.02)):
        for entry in open_dataset(dataset, "text").entries:
            assert 0 < entry.measures["codec_relative_l2"] <= entry.measures["codec_worst_token_l2"] < most


def test_an_unknown_codec_is_refused(stage: TextStage) -> None:
    with pytest.raises(UserError, match="--codec int4"):
        replace(stage, codec="int4")
