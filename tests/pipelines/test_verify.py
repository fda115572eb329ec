import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from curation.demo.models import make_t5, make_vae
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import latents, text, verify
from pipelines.command import run
from schemas.dataset import DATASET_FILE, PLAN_FILE, DatasetInfo, PlannedUnit, PlanRecord, RunFacts, table_path
from schemas.record import to_json
from schemas.status import RejectReason
from schemas.tables import CAPTIONS
from training.data.manifest import open_manifest
from training.data.reader import Reader

SHARDS = ("s-000", "s-001")
REFUSED_CAPTION = "4"  # its caption is unusable, its picture is fine
NEVER_CAPTIONED = "3"  # its row was refused when captions were made


@dataclass(frozen=True, slots=True)
class Flow:
    """Sources, models and datasets below one directory."""

    root: Path

    def path(self, name: str) -> str:
        return str(self.root / name)

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the JSON summary."""
        out = self.root / "verify.json"
        code = verify.main([*arguments, "--summary-json", str(out)])
        return code, json.loads(out.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("flow")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        make_vae(root / "vae")
        make_t5(root / "t5")
        make_t5(root / "another-t5")
    for number, shard in enumerate(SHARDS):
        _write_shard(root / f"{shard}.tar", number)
    _write_captions(root / "captions", "a red barn by the river")
    given = ["--shards", str(root / "s-{000..001}.tar"), "--source", "webdataset", "--vae", str(root / "vae")]
    assert latents.main([*given, "--out", str(root / "latents"), "--size", "64", "--batch-size", "2"]) == 0
    given = ["--captions", str(root / "captions"), "--t5", str(root / "t5")]
    assert text.main([*given, "--out", str(root / "text")]) == 0
    assert text.main([*given, "--out", str(root / "text8"), "--codec", "int8"]) == 0
    return root


@pytest.fixture
def flow(made: Path, tmp_path: Path) -> Flow:
    """A copy of everything, to be damaged."""
    shutil.copytree(made, tmp_path / "flow")
    return Flow(tmp_path / "flow")


def _write_shard(path: Path, number: int) -> None:
    noise = np.random.default_rng(number)
    with tarfile.open(path, "w") as tar:
        for i in range(5):
            buffer = io.BytesIO()
            pixels = noise.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((90 + i, 80), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = len(buffer.getvalue())
            tar.addfile(member, io.BytesIO(buffer.getvalue()))


def _write_captions(root: Path, first: str) -> None:
    target = Target(str(root))
    units = [PlannedUnit(name, name, 0, 5) for name in SHARDS]
    info = DatasetInfo("captions", CAPTIONS.version, "caption", {}, "f" * 32, "webdataset", "c0ffee", 0)
    target.write_text(DATASET_FILE, to_json(info))
    target.write_text(PLAN_FILE, to_json(PlanRecord(SHARDS, tuple(units))))
    numbers = ("width", "height", "n_prompt_tokens", "n_tokens", "n_words", "rules_version", "seed")
    for unit in units:
        with UnitWriter(target, unit, "caption") as writer:
            sink = writer.table(table_path(unit.name), CAPTIONS)
            for i in range(5):
                if str(i) == NEVER_CAPTIONED:
                    writer.reject(str(i), RejectReason.TOO_SMALL, "8 px")
                    continue
                caption = " ".join([first, *["and two horses"] * i])
                status = "refusal" if str(i) == REFUSED_CAPTION else "ok"
                row = dict.fromkeys(CAPTIONS.arrow.names) | dict.fromkeys(numbers, 1)
                row |= {"key": str(i), "shard": unit.shard, "generated": caption, "caption": caption, "status": status}
                sink.write([row | {"flags": [], "finish_reason": "stop", "prompt_id": "p"}])
                writer.keep(str(i))
            writer.commit(info.fingerprint, (), RunFacts(0.0, {}, 1, "", {}))


def test_whole_datasets_are_clean_and_made_again_to_the_bit(flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(flow.root)
    code, told = flow.verify(
        *(flow.path(name) for name in ("captions", "latents", "text", "text8")),
        *("--captions", flow.path("captions"), "--t5", flow.path("t5"), "--rows", "4"),
        *("--shards", flow.path("s-{000..001}.tar"), "--source", "webdataset", "--vae", flow.path("vae")),
    )
    assert (code, told["clean"]) == (0, True)
    assert [d["kind"] for d in told["datasets"]] == ["captions", "latents", "text", "text"]
    assert [d["rows_kept"] for d in told["datasets"]] == [8, 10, 6, 6]
    assert told["datasets"][1]["statistics"]["members"] == 10
    assert len(told["datasets"][1]["statistics"]["channel_std"]) == 4
    assert [made["rows"] for made in told["reencoded"]] == [4, 4, 4]
    assert told["reencoded"][0]["equal"] == 4
    assert all(made["worst"] <= made["tolerance"] for made in told["reencoded"])
    assert 0 < told["datasets"][3]["measures"]["codec_relative_l2"][0] < 0.02
    assert "clean" in capsys.readouterr().out
    assert {n: c for n, c in _files(flow.root).items() if n != "verify.json"} == before


def test_holes_that_somebody_refused_are_notes_and_others_are_wrong(flow: Flow) -> None:
    code, told = flow.verify(flow.path("latents"), flow.path("text"), "--captions", flow.path("captions"))
    (join,) = told["joins"]
    assert code == 0
    assert (join["matched"], join["lost_text"], join["lost_latents"]) == (6, 0, 0)
    assert join["refused_text"] == {"unusable_caption": 2, "too_small": 2}
    code, told = flow.verify(flow.path("latents"), flow.path("text"))
    assert code == 1
    assert [f["where"] for f in told["findings"] if f["severity"] == "wrong"] == ["s-000/3", "s-001/3"]


def test_channel_statistics_are_those_of_scaled_draws_from_the_posterior(flow: Flow) -> None:
    _, told = flow.verify(flow.path("latents"))
    scale = json.loads((flow.root / "latents" / DATASET_FILE).read_text())["facts"]["scaling_factor"]
    members = [np.load(io.BytesIO(content)) for content in _members(flow.root / "latents")]
    mean = np.stack([m[0] for m in members]).astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1) * scale
    std = np.stack([m[1] for m in members]).astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1) * scale
    found = told["datasets"][0]["statistics"]
    np.testing.assert_allclose(found["channel_mean"], mean.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(found["channel_std"], np.sqrt(mean.var(axis=1) + (std**2).mean(axis=1)), rtol=1e-9)


def _flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def _edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def _republish(root: Path, path: str) -> None:
    """Make the ledger agree with a file that was changed, as one who covers his tracks would."""
    import xxhash

    content = (root / path).read_bytes()

    def edit(entry: dict[str, Any]) -> None:
        (output,) = [o for o in entry["outputs"] if o["path"] == path]
        output |= {"bytes": len(content), "digest": xxhash.xxh3_128_hexdigest(content)}

    _edit_json(root / "ledger" / f"{Path(path).stem}.json", edit)


def test_a_flipped_byte_is_found_twice_in_the_file_and_in_the_sample(flow: Flow) -> None:
    row = pq.read_table(flow.root / "latents/index/s-000.parquet").to_pylist()[1]
    _flip_byte(flow.root / "latents/s-000.tar", row["offset"] + row["bytes"] - 1)
    code, told = flow.verify(flow.path("latents"))
    assert (code, told["counts"]["wrong"]) == (1, {"files": 1, "members": 1})
    assert any(f["where"].endswith("s-000.tar: 1") and "xxh3" in f["what"] for f in told["findings"])


def test_an_index_that_points_elsewhere_is_found_though_all_digests_agree(flow: Flow) -> None:
    path = flow.root / "text/index/s-000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["offset"], rows[1]["offset"] = rows[1]["offset"], rows[0]["offset"]
    rows[2]["tokens"] += 1
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    _republish(flow.root / "text", "index/s-000.parquet")
    code, told = flow.verify(flow.path("text"))
    assert code == 1
    whats = [f["what"] for f in told["findings"]]
    assert sum("no member" in what for what in whats) == 2
    assert any("expected (" in what for what in whats)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda e: e.update(rows_kept=e["rows_kept"] - 1), "rows in, but"),
        (lambda e: e.update(stop=e["stop"] + 1), "but 4 rows in"),
        (lambda e: e["outputs"].pop(), "is not among its outputs"),
        (lambda e: e["counts"].update(tokens=1), "the ledger says {'tokens': 1"),
        (lambda e: e.update(rejected={"no_caption": 2}), "reasons {"),
    ],
)
def test_a_ledger_whose_arithmetic_is_off_is_wrong(flow: Flow, edit: Any, what: str) -> None:
    _edit_json(flow.root / "text/ledger/s-001.json", edit)
    code, told = flow.verify(flow.path("text"))
    assert code == 1
    assert any(what in f["what"] for f in told["findings"]), told["findings"]


def test_missing_units_cut_off_files_and_a_wrong_null_embedding_are_wrong(flow: Flow) -> None:
    (flow.root / "text/ledger/s-000.json").unlink()
    (flow.root / "text/s-001.tar").write_bytes((flow.root / "text/s-001.tar").read_bytes()[:-512])
    _flip_byte(flow.root / "text/null.text.npy", -1)
    code, told = flow.verify(flow.path("text"))
    assert code == 1
    assert told["counts"]["wrong"] == {"ledger": 3, "null text": 1}  # no finished unit is left
    assert {f["where"].rpartition("/")[2] for f in told["findings"] if f["severity"] == "note"} >= {"s-000.tar"}


def test_a_damaged_index_is_told_once_and_its_shard_is_left_out_of_the_rest(flow: Flow) -> None:
    path = flow.root / "text/index/s-000.parquet"
    path.write_bytes(bytes(path.stat().st_size))
    code, told = flow.verify(
        *(flow.path("latents"), flow.path("text")),
        *("--captions", flow.path("captions"), "--t5", flow.path("t5"), "--rows", "9"),
    )
    assert (code, told["counts"]["wrong"]) == (1, {"files": 1})
    assert (told["joins"][0]["matched"], told["reencoded"][0]["rows"]) == (3, 3)
    assert any("not joined" in f["what"] for f in told["findings"])


def test_a_missing_or_foreign_captions_dataset_is_refused_or_told(
    flow: Flow, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit_json(flow.root / "captions" / DATASET_FILE, lambda info: info.update(dataset_id="beef"))
    code, told = flow.verify(flow.path("text"), "--captions", flow.path("captions"))
    assert (code, told["counts"]["wrong"]) == (1, {"captions": 1})
    with pytest.raises(SystemExit) as exit_:
        run(verify.main, [flow.path("text"), "--captions", flow.path("vae")])
    assert exit_.value.code == 2


def test_datasets_behind_urls_are_checked_alike(flow: Flow) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("latents", "text8"):
        memory.put(flow.path(name), f"/verify/{name}", recursive=True)
    code, told = flow.verify("memory://verify/latents", "memory://verify/text8")
    here = flow.verify(flow.path("latents"), flow.path("text8"))[1]
    memory.rm("/verify", recursive=True)
    assert (code, told["counts"]["wrong"]) == (1, {"join": 2})  # without captions nobody knows why
    assert [d["statistics"] for d in told["datasets"]] == [d["statistics"] for d in here["datasets"]]


def test_flipped_latents_are_made_again_flipped(flow: Flow) -> None:
    source = ["--shards", flow.path("s-{000..001}.tar"), "--source", "webdataset", "--vae", flow.path("vae")]
    size = ["--size", "64", "--batch-size", "2"]
    assert latents.main([*source, "--out", flow.path("flipped"), *size, "--flip"]) == 0
    code, told = flow.verify(flow.path("flipped"), *source, "--rows", "10")
    assert (code, told["reencoded"][0]["equal"]) == (0, 10)


def test_training_reads_text_of_either_codec(flow: Flow) -> None:
    manifests = [open_manifest(flow.path("latents"), flow.path(name), max_unmatched=0.5) for name in ("text", "text8")]
    whole, small = (Reader(manifest) for manifest in manifests)
    assert len(manifests[0]) == len(manifests[1]) == 6
    for row in range(6):
        first, second = (reader.text(row).astype(np.float32) for reader in (whole, small))
        assert 0 < np.linalg.norm(second - first) < 0.02 * np.linalg.norm(first)


def test_leftovers_are_listed_and_not_wrong(flow: Flow) -> None:
    (flow.root / "latents/.s-002.tar.tmp-host-1-2-ab").write_bytes(b"")
    (flow.root / "latents/s-009.tar").write_bytes(b"")
    code, told = flow.verify(flow.path("latents"))
    assert (code, told["counts"]["note"]["leftovers"]) == (0, 2)


def test_captions_that_changed_since_are_found_row_by_row(flow: Flow) -> None:
    _write_captions(flow.root / "captions", "a blue barn by the river")
    code, told = flow.verify(flow.path("text"), "--captions", flow.path("captions"))
    assert (code, told["counts"]["wrong"]) == (1, {"captions": 2 + 6})


def test_a_source_that_gives_another_picture_is_found(flow: Flow) -> None:
    source = ["--shards", flow.path("s-{000..001}.tar"), "--source", "webdataset", "--vae", flow.path("vae")]
    path = flow.root / "latents/s-000.tar"
    rows = pq.read_table(flow.root / "latents/index/s-000.parquet").to_pylist()
    content = bytearray(path.read_bytes())
    first, second = (slice(r["offset"], r["offset"] + r["bytes"]) for r in rows[:2])
    content[first], content[second] = content[second], content[first]
    path.write_bytes(bytes(content))
    code, told = flow.verify(flow.path("latents"), *source, "--rows", "10")
    assert (code, told["counts"]["wrong"]["re-encoded"], told["reencoded"][0]["equal"]) == (1, 2, 8)
    _write_shard(flow.root / "s-001.tar", 77)
    _, told = flow.verify(flow.path("latents"), *source, "--rows", "10")
    assert any("its content changed" in f["what"] for f in told["findings"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--vae", "vae"], "needs --shards"),
        (["--t5", "t5"], "needs --captions"),
        (["--captions", "captions"], "no text dataset"),
        (["--rows", "0"], "must be at least 1"),
        (["--tolerance", "-1"], "--tolerance -1.0: must be a distance"),
        (["--summary-json", "nowhere/found.json"], "not a file in a directory that exists"),
    ],
)
def test_arguments_that_cannot_work_are_one_line(
    flow: Flow, more: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(verify.main, [flow.path("latents"), *(flow.path(m) if (flow.root / m).exists() else m for m in more)])
    err = capsys.readouterr().err
    assert (exit_.value.code, err.count("\n")) == (2, 1)
    assert said in err


def test_a_full_disk_under_the_summary_is_one_line(flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(verify.main, [flow.path("latents"), "--summary-json", "/dev/full"])
    assert exit_.value.code == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: /dev/full: cannot be written (No space left")


def test_another_checkpoint_than_the_datasets_is_refused(flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(
            verify.main,
            [flow.path("text"), "--captions", flow.path("captions"), "--t5", flow.path("another-t5")],
        )
    assert exit_.value.code == 2
    assert "was made with t5" in capsys.readouterr().err


def test_help_does_not_import_the_model_libraries() -> None:
    modules = "('torch', 'transformers', 'pyarrow')"
    code = f"import sys, pipelines.verify; sys.exit(any(m in sys.modules for m in {modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _members(root: Path) -> list[bytes]:
    out = []
    for path in sorted(root.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                out.append(file.read())
    return out
