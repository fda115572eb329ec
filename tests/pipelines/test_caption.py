import io
import json
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.scenes.alt_text import alt_text
from curation.scenes.drawing import draw
from curation.scenes.scene import scene
from curation.scenes.shards import picture_file, write_laion_shards, write_sam_shards
from pipelines import caption
from pipelines.command import run
from schemas.dataset import LedgerEntry
from schemas.errors import ExitCode
from schemas.reading import open_dataset, read_ledger
from schemas.tables import CAPTIONS, REJECTS

ROWS = 10


@pytest.fixture
def shards(tmp_path: Path) -> str:
    write_laion_shards(tmp_path / "shards", shards=2, rows=ROWS, broken=3)
    return str(tmp_path / "shards" / "{00000..00001}.tar")


def arguments(shards: str, model: Path, out: Path, *more: str) -> list[str]:
    given = ["--shards", shards, "--source", "webdataset", "--model", str(model), "--out", str(out)]
    return [*given, "--max-new-tokens", "6", "--batch-size", "4", "--unit-rows", "4", *more]


def ends(capsys: pytest.CaptureFixture[str], given: list[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run(caption.main, given)
    return int(exit_.value.code or 0), capsys.readouterr().err


def data_of(out: Path) -> dict[str, bytes]:
    kept = [p for p in out.rglob("*") if p.is_file() and p.relative_to(out).parts[0] not in {"ledger", "runs"}]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


def entries(out: Path) -> dict[str, LedgerEntry]:
    return {entry.unit: entry for entry in read_ledger(str(out)).entries}


def test_every_readable_picture_has_one_row_and_every_other_one_reject(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    code, said = ends(capsys, arguments(shards, llava, out))
    assert code == 0
    assert "20 in = 14 kept + 6 rejected" in said
    dataset = open_dataset(str(out), "captions").require_whole()
    rows = [row for table in dataset.tables(CAPTIONS) for row in table.to_pylist()]
    rejects = [row for table in dataset.tables(REJECTS, folder="rejects") for row in table.to_pylist()]
    expected = {f"{shard:05d}{row:04d}" for shard in range(2) for row in range(ROWS)}
    assert len(rows) == 14
    assert {row["key"] for row in rows} | {row["key"] for row in rejects} == expected
    assert [r["reason"] for r in rejects[:3]] == ["corrupt", "not_an_image", "empty_file"]
    first = next(row for row in rows if row["key"] == "000000000")
    assert first["raw_caption"] == alt_text(scene(0, 0)).text
    assert (first["width"], first["height"]) == draw(scene(0, 0)).size
    assert first["finish_reason"] in ("stop", "length")


def test_running_again_does_nothing_and_says_so(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    ends(capsys, arguments(shards, llava, out))
    before = data_of(out)
    code, said = ends(capsys, arguments(shards, llava, out, "--summary-json", str(tmp_path / "summary.json")))
    assert code == 0
    assert "nothing to do: all 6 are whole and current" in said
    assert data_of(out) == before
    assert json.loads((tmp_path / "summary.json").read_text())["units_current"] == 6


def test_another_prompt_makes_every_caption_due_and_names_the_prompt(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    ends(capsys, arguments(shards, llava, out))
    before = entries(out)
    code, said = ends(capsys, arguments(shards, llava, out, "--prompt", "laion", "--dry-run"))
    assert (code, said.count("due, prompt changed")) == (0, 6)
    assert {k: v.fingerprint for k, v in entries(out).items()} == {k: v.fingerprint for k, v in before.items()}
    code, said = ends(capsys, arguments(shards, llava, out, "--prompt", "laion"))
    assert (code, "6 prompt changed" in said) == (0, True)
    assert all(entries(out)[name].fingerprint != entry.fingerprint for name, entry in before.items())


def test_one_deleted_output_redoes_one_unit_with_the_same_bytes(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    ends(capsys, arguments(shards, llava, out))
    before = data_of(out)
    (out / "00001-00000.parquet").unlink()
    code, said = ends(capsys, arguments(shards, llava, out))
    assert code == 0
    assert "1 done, 5 already current (were due: 1 with missing or damaged files)" in said
    assert data_of(out) == before


def test_workers_and_threads_do_not_change_a_byte(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends(capsys, arguments(shards, llava, tmp_path / "a", "--temperature", "0.8", "--seed", "5"))
    given = arguments(shards, llava, tmp_path / "b", "--temperature", "0.8", "--seed", "5")
    code, _ = ends(capsys, [*given, "--decode-threads", "0", "--workers", "2"])
    assert code == 0
    assert data_of(tmp_path / "a") == data_of(tmp_path / "b")


def test_the_batch_size_changes_nothing_but_the_last_bits_of_log_probabilities(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("a", "8"), ("b", "3")):
        given = arguments(shards, llava, tmp_path / name, "--temperature", "0.8", "--seed", "5")
        assert ends(capsys, [*given, "--batch-size", size])[0] == 0
    one, other = (
        pa.concat_tables(open_dataset(str(tmp_path / name), "captions").tables(CAPTIONS)) for name in ("a", "b")
    )
    logprobs = [table["mean_logprob"].to_pylist() for table in (one, other)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-5)
    assert one.drop(["mean_logprob"]).equals(other.drop(["mean_logprob"]))


def test_sa1b_shards_keep_their_keys_and_their_masks_are_not_read(
    llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = write_sam_shards(tmp_path, shards=1, rows=4)
    out = tmp_path / "captions"
    given = ["--shards", str(shard), "--source", "sam", "--model", str(llava), "--out", str(out)]
    code, _ = ends(capsys, [*given, "--max-new-tokens", "4"])
    assert code == 0
    table = pq.read_table(out / "sa_000000-00000.parquet")
    assert table["key"].to_pylist() == [f"sa_{i}" for i in range(4)]
    assert table["raw_caption"].null_count == 4


def test_a_folder_of_pictures_is_captioned_with_its_paths_as_keys(
    llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (folder / "day.one").mkdir(parents=True)
    (folder / "day.one" / "a.b.jpg").write_bytes(picture_file(scene(0, 1)))
    (folder / "c.jpg").write_bytes(picture_file(scene(0, 2)))
    (folder / "c.txt").write_text("a thing")
    out = tmp_path / "captions"
    given = ["--shards", str(folder), "--source", "folder", "--model", str(llava), "--out", str(out)]
    code, said = ends(capsys, [*given, "--max-new-tokens", "4"])
    assert (code, "2 in = 2 kept + 0 rejected" in said) == (0, True)
    rows = pq.read_table(out / "photos-00000.parquet").to_pylist()
    assert {row["key"]: row["raw_caption"] for row in rows} == {"c": "a thing", "day.one/a.b": None}


def _plain_file(path: Path) -> Path:
    path.write_bytes(b"this is no tar file, only some text\n" * 40)
    return path


def _gzip(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("a.jpg")
        tar.addfile(member, io.BytesIO(b""))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a, p: [*a, "--shards", str(p / "absent.tar")], "no such shard"),
        (lambda a, p: [*a, "--shards", str(p / "none-*.tar")], "matches nothing"),
        (lambda a, p: [*a, "--shards", str(_plain_file(p / "x.tar"))], "not a tar file"),
        (lambda a, p: [*a, "--shards", str(_gzip(p / "x.tar"))], "gzip"),
        (lambda a, p: [*a, "--shards", str(p)], "a folder, not a tar"),
        (lambda a, p: [*a, "--source", "laion"], "sam"),
        (lambda a, p: [*a, "--model", str(p / "no-model")], "no such directory"),
        (lambda a, p: [*a, "--model", str(p)], "no config.json"),
        (lambda a, p: [*a, "--device", "cuda"], "no CUDA device"),
        (lambda a, p: [*a, "--prompt", "{caption}"], "--prompt"),
        (lambda a, p: [*a, "--batch-size", "0"], "--batch-size"),
        (lambda a, p: [*a, "--device", "cdua"], "no such device"),
        (lambda a, p: [*a, "--temperature", "nan"], "--temperature"),
        (lambda a, p: [*a, "--model", "llava/"], "no such directory"),
        (lambda a, p: [*a, "--summary-json", str(p / "absent" / "s.json")], "--summary-json"),
        (lambda a, p: [*a, "--workers", "two"], "not a whole number"),
        (lambda a, p: [*a, "--max-rejected", "few"], "not a share"),
        (lambda a, p: [*a, "--max-new-tokns", "3"], "See python -m pipelines.caption --help"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(
    change: object, says: str, shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    given = change(arguments(shards, llava, out), tmp_path)
    code, said = ends(capsys, given)
    assert code == ExitCode.BAD_INPUT
    assert says in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_model_without_processor_is_refused_before_anything_is_written(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((llava / "config.json").read_bytes())
    code, said = ends(capsys, arguments(shards, bare, tmp_path / "captions"))
    assert (code, "no processor_config.json or preprocessor_config.json" in said) == (ExitCode.BAD_INPUT, True)
    assert not (tmp_path / "captions").exists()


def test_an_output_of_another_source_or_kind_is_left_alone(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    ends(capsys, arguments(shards, llava, out))
    before = data_of(out)
    (shard,) = write_sam_shards(tmp_path / "sam", shards=1, rows=4)
    code, said = ends(capsys, [*arguments(shards, llava, out), "--shards", str(shard), "--source", "sam"])
    assert (code, "was made from webdataset" in said) == (ExitCode.BAD_INPUT, True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    code, said = ends(capsys, arguments(shards, llava, tmp_path / "home"))
    assert (code, "no latentmill dataset" in said) == (ExitCode.BAD_INPUT, True)
    assert data_of(out) == before


def test_a_self_check_that_fails_stops_before_the_first_picture(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in llava.iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    config = json.loads((wrong / "processor_config.json").read_text())
    (wrong / "processor_config.json").write_text(json.dumps({**config, "num_additional_image_tokens": 0}))
    out = tmp_path / "captions"
    code, said = ends(capsys, arguments(shards, wrong, out))
    assert (code, "self-check" in said) == (ExitCode.STOPPED, True)
    assert list(out.glob("*.parquet")) == []


def test_too_many_rejects_stop_the_job(llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_laion_shards(tmp_path, shards=1, rows=220, broken=100)
    given = arguments(str(tmp_path / "00000.tar"), llava, tmp_path / "captions", "--max-rejected", "5%")
    code, said = ends(capsys, [*given, "--max-new-tokens", "1", "--unit-rows", "210"])
    assert (code, "above --max-rejected 5.0%" in said) == (ExitCode.STOPPED, True)


def test_an_estimate_captions_a_few_pictures_and_writes_nothing(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*arguments(shards, llava, tmp_path / "out"), "--estimate", "--workers", "4"]
    assert caption.main(given) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for what in (
        "pictures (",
        " images/s a worker, ",
        "tokens a caption",
        "with 4 that",
        "of captions (",
        "truncated ",
    ):
        assert what in said
    assert "of 2 shards in 4 parts" in said


def test_an_estimate_over_one_shard_has_intervals_too(
    shards: str, llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = shards.replace("{00000..00001}", "00000")
    assert caption.main([*arguments(one, llava, tmp_path / "out"), "--estimate"]) == 0
    said = capsys.readouterr().out
    assert "of 1 shard in 4 parts" in said
    (interval,) = re.findall(r"\(([\d.]+) to ([\d.]+)\) images/s", said)
    assert float(interval[0]) < float(interval[1])
