import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from curation.demo.models import make_t5, make_vae
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import text
from pipelines.command import run
from schemas.dataset import (
    DATASET_FILE,
    NULL_TEXT_FILE,
    PLAN_FILE,
    DatasetInfo,
    PlannedUnit,
    PlanRecord,
    RunFacts,
    table_path,
)
from schemas.reading import open_dataset, read_info
from schemas.record import to_json
from schemas.tables import CAPTIONS

TEXTS = ["a red barn", "two horses in the meadow", "hills", "the street at night, wet from rain"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("models") / "t5"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        make_t5(directory)
    return directory


@pytest.fixture
def write_captions(tmp_path: Path) -> Callable[..., Path]:
    """A captions dataset of one unit a shard; `unfinished` names a shard that is planned and not made."""

    def write(shards: dict[str, Sequence[str]], unfinished: str | None = None) -> Path:
        target = Target(str(tmp_path / "captions"))
        planned = [PlannedUnit(name, name, 0, len(texts)) for name, texts in shards.items()]
        info = DatasetInfo("captions", CAPTIONS.version, "caption", {}, "f" * 32, "webdataset", "c0ffee", 0)
        target.write_text(DATASET_FILE, to_json(info))
        target.write_text(PLAN_FILE, to_json(PlanRecord(tuple(sorted(shards)), tuple(planned))))
        for unit in planned:
            if unit.name == unfinished:
                continue
            with UnitWriter(target, unit, "caption") as writer:
                sink = writer.table(table_path(unit.name), CAPTIONS)
                for number, caption in enumerate(shards[unit.name]):
                    row = dict.fromkeys(CAPTIONS.arrow.names) | {
                        "key": f"{number:03}",
                        "shard": unit.shard,
                        "generated": caption,
                        "caption": caption,
                        "status": "ok",
                        "flags": [],
                        "finish_reason": "stop",
                        "prompt_id": "p",
                    }
                    numbers = ("width", "height", "n_prompt_tokens", "n_tokens", "n_words", "rules_version", "seed")
                    sink.write([row | dict.fromkeys(numbers, 1)])
                    writer.keep(row["key"])
                writer.commit(info.fingerprint, (), RunFacts(0.0, {}, 1, "", {}))
        return tmp_path / "captions"

    return write


def arguments(captions: Path, t5: Path, out: Path, *more: str) -> list[str]:
    return ["--captions", str(captions), "--t5", str(t5), "--out", str(out), *more]


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run(text.main, arguments)
    return int(exit_.value.code or 0), capsys.readouterr().err


def data_of(out: Path) -> dict[str, bytes]:
    kept = [p for p in out.rglob("*") if p.is_file() and p.relative_to(out).parts[0] not in {"ledger", "runs"}]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


def test_a_run_ends_with_a_whole_dataset_and_its_null_embedding_and_a_second_one_does_nothing(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, out = write_captions({"s0": TEXTS, "s1": TEXTS[:2]}), tmp_path / "text"
    assert text.main(arguments(captions, t5, out)) == 0
    dataset = open_dataset(str(out), "text").require_whole()
    assert [entry.rows_kept for entry in dataset.entries] == [4, 2]
    assert dataset.info.source == "captions:c0ffee:caption"
    content = (out / NULL_TEXT_FILE).read_bytes()
    assert np.load(io.BytesIO(content)).shape == (dataset.info.facts["null_tokens"], dataset.info.facts["dim"])
    assert xxhash.xxh3_128(content).hexdigest() == dataset.info.facts["null_digest"]
    before = data_of(out)
    capsys.readouterr()
    assert text.main(arguments(captions, t5, out)) == 0
    assert "nothing to do: all 2 are whole and current" in capsys.readouterr().err
    assert data_of(out) == before


def test_a_null_embedding_that_was_lost_comes_back_though_no_unit_is_due(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path
) -> None:
    captions, out = write_captions({"s0": TEXTS}), tmp_path / "text"
    assert text.main(arguments(captions, t5, out)) == 0
    before = data_of(out)
    (out / NULL_TEXT_FILE).unlink()
    assert text.main(arguments(captions, t5, out)) == 0
    assert data_of(out) == before


def test_another_t5_renews_the_null_embedding_and_every_unit(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path
) -> None:
    captions, out = write_captions({"s0": TEXTS}), tmp_path / "text"
    assert text.main(arguments(captions, t5, out)) == 0
    before = data_of(out)
    make_t5(tmp_path / "wider", width=32)
    assert text.main(arguments(captions, tmp_path / "wider", out)) == 0
    after = data_of(out)
    assert all(after[name] != before[name] for name in (NULL_TEXT_FILE, "s0.tar", "index/s0.parquet"))
    info = read_info(str(out))
    assert info is not None
    assert info.facts["dim"] == 32
    assert xxhash.xxh3_128(after[NULL_TEXT_FILE]).hexdigest() == info.facts["null_digest"]


@pytest.mark.slow
def test_ray_workers_write_the_same_bytes_as_one_process(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path
) -> None:
    captions = write_captions({"s0": TEXTS, "s1": TEXTS[1:]})
    assert text.main(arguments(captions, t5, tmp_path / "inline")) == 0
    assert text.main(arguments(captions, t5, tmp_path / "ray", "--executor", "ray")) == 0
    assert data_of(tmp_path / "inline") == data_of(tmp_path / "ray")


def test_a_dry_run_writes_nothing(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions({"s0": TEXTS})
    assert text.main(arguments(captions, t5, tmp_path / "text", "--dry-run")) == 0
    assert "s0: due, not made yet (4 rows)" in capsys.readouterr().err
    assert not (tmp_path / "text").exists()


def test_captions_that_are_not_finished_are_refused(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions({"s0": TEXTS, "s1": TEXTS}, unfinished="s1")
    code, said = fails(arguments(captions, t5, tmp_path / "text"), capsys)
    assert (code, said.count("\n")) == (2, 1)
    assert "s1: not made yet" in said
    assert not (tmp_path / "text").exists()


def test_two_caption_columns_never_share_a_dataset(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions({"s0": TEXTS})
    assert text.main(arguments(captions, t5, tmp_path / "text")) == 0
    before = data_of(tmp_path / "text")
    code, said = fails(arguments(captions, t5, tmp_path / "text", "--column", "generated"), capsys)
    assert (code, said.count("\n")) == (2, 1)
    assert "was made from captions:c0ffee:caption" in said
    assert data_of(tmp_path / "text") == before


def test_what_cannot_work_stops_in_one_line_before_anything_is_written(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, out = write_captions({"s0": TEXTS}), tmp_path / "text"
    make_vae(tmp_path / "vae")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((t5 / "config.json").read_bytes())
    cases = {
        "no latentmill dataset": arguments(tmp_path / "nowhere", t5, out),
        "no such directory": arguments(captions, Path("/nowhere/t5"), out),
        "no tokenizer.json or spiece.model there": arguments(captions, tmp_path / "bare", out),
        "--device quantum: not usable here": arguments(captions, t5, out, "--device", "quantum"),
        "--max-tokens 1": arguments(captions, t5, out, "--max-tokens", "1"),
    }
    for message, given in cases.items():
        code, said = fails(given, capsys)
        assert code == 2
        assert message in said
        assert said.count("\n") == 1
        assert not out.exists()


def test_a_damaged_captions_file_costs_its_unit_alone_and_is_named(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, out = write_captions({"s0": TEXTS, "s1": TEXTS}), tmp_path / "text"
    table = captions / "s0.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[:-20] + bytes(20))
    code, said = fails(arguments(captions, t5, out), capsys)
    assert code == 1
    assert f"{table}: damaged Parquet" in "".join(said.split("\n")).replace(" " * 20, "")
    assert "Traceback" not in said
    assert [entry.unit for entry in open_dataset(str(out), "text").entries] == ["s1"]
    table.write_bytes(whole)
    assert fails(arguments(captions, t5, out), capsys)[0] == 0


def test_help_does_not_import_the_model_libraries() -> None:
    modules = "('torch', 'transformers', 'pyarrow')"
    code = f"import sys, pipelines.text; sys.exit(any(m in sys.modules for m in {modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_estimate_says_bytes_and_writes_nothing(
    write_captions: Callable[..., Path], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions({"s0": TEXTS, "s1": TEXTS})
    assert text.main(arguments(captions, t5, tmp_path / "text", "--estimate", "--codec", "int8")) == 0
    assert "8 of 8 captions read: 8 usable" in capsys.readouterr().out
    assert not (tmp_path / "text").exists()
