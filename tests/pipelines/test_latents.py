import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from curation.demo.models import make_t5, make_vae
from pipelines import latents
from pipelines.command import run
from schemas.reading import open_dataset


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("models") / "vae"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        make_vae(directory)
    return directory


@pytest.fixture
def shards(tmp_path: Path) -> str:
    for shard in range(2):
        with tarfile.open(tmp_path / f"s-{shard:03}.tar", "w") as tar:
            for i in range(5):
                buffer = io.BytesIO()
                Image.new("RGB", (90 + i, 80), (40 * i, 9, 200 * shard)).save(buffer, "JPEG")
                content = buffer.getvalue() if i != 2 else b"\xff\xd8\xff broken"
                member = tarfile.TarInfo(f"{i}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(tmp_path / "s-{000..001}.tar")


def arguments(shards: str, vae: Path, out: Path, *more: str) -> list[str]:
    given = ["--shards", shards, "--source", "webdataset", "--vae", str(vae), "--out", str(out), "--size", "64"]
    return [*given, "--batch-size", "2", *more]


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run(latents.main, arguments)
    return int(exit_.value.code or 0), capsys.readouterr().err


def data_of(out: Path) -> dict[str, bytes]:
    kept = [p for p in out.rglob("*") if p.is_file() and p.relative_to(out).parts[0] not in {"ledger", "runs"}]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


def test_a_run_ends_with_a_whole_dataset_and_a_second_one_does_nothing(
    shards: str, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, summary = tmp_path / "latents", tmp_path / "summary.json"
    assert latents.main(arguments(shards, vae, out, "--summary-json", str(summary))) == 0
    told = json.loads(summary.read_text())
    assert (told["rows_in"], told["rows_kept"], told["rejected"]) == (10, 8, {"corrupt": 2})
    assert sum(entry.rows_kept for entry in open_dataset(str(out), "latents").require_whole().entries) == 8
    capsys.readouterr()
    assert latents.main(arguments(shards, vae, out)) == 0
    assert "nothing to do: all 2 are whole and current" in capsys.readouterr().err


def test_units_of_a_few_rows_can_be_asked_for_and_are_remembered(shards: str, vae: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    assert latents.main(arguments(shards, vae, out, "--unit-rows", "3")) == 0
    assert latents.main(arguments(shards, vae, out)) == 0
    units = [entry.unit for entry in open_dataset(str(out), "latents").entries]
    assert units == ["s-000-00000", "s-000-00001", "s-001-00000", "s-001-00001"]


@pytest.mark.slow
def test_ray_workers_write_the_same_bytes_as_one_process(shards: str, vae: Path, tmp_path: Path) -> None:
    assert latents.main(arguments(shards, vae, tmp_path / "inline")) == 0
    assert latents.main(arguments(shards, vae, tmp_path / "ray", "--executor", "ray")) == 0
    assert data_of(tmp_path / "inline") == data_of(tmp_path / "ray")


def test_a_dry_run_writes_nothing(shards: str, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert latents.main(arguments(shards, vae, tmp_path / "latents", "--dry-run")) == 0
    assert "2 due" in capsys.readouterr().err
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--vae", "/nowhere/vae"], "/nowhere/vae: no such directory"),
        (["--size", "60"], "--size 60: 60x60 px is no multiple"),
        (["--device", "quantum"], "--device quantum: not usable here"),
        (["--source", "flickr"], "no source is called 'flickr'"),
        (["--size", "64", "--buckets", "aspect"], "resolution 64: no aspect buckets"),
    ],
)
def test_what_cannot_work_stops_in_one_line_before_anything_is_written(
    shards: str, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    code, said = fails(arguments(shards, vae, tmp_path / "latents", *change), capsys)
    assert code == 2
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "latents").exists()


def test_a_shard_that_is_no_tar_stops_in_one_line(
    vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.tar").write_bytes(b"hello")
    code, said = fails(arguments(str(tmp_path / "s.tar"), vae, tmp_path / "latents"), capsys)
    assert code == 2
    assert "s.tar" in said
    assert not (tmp_path / "latents").exists()


def test_a_directory_without_a_vae_stops_in_one_line(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    code, said = fails(arguments(shards, tmp_path / "empty", tmp_path / "latents"), capsys)
    assert (code, said.count("\n")) == (2, 1)
    assert "no config.json there" in said
    make_t5(tmp_path / "t5")
    capsys.readouterr()
    code, said = fails(arguments(shards, tmp_path / "t5", tmp_path / "latents"), capsys)
    assert (code, said.count("\n")) == (2, 1)
    assert "a t5, not one of AutoencoderKL" in said


def test_another_vae_makes_everything_due_and_says_why(
    shards: str, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latents.main(arguments(shards, vae, tmp_path / "latents")) == 0
    make_vae(tmp_path / "other")
    capsys.readouterr()
    assert latents.main(arguments(shards, tmp_path / "other", tmp_path / "latents", "--dry-run")) == 0
    assert "s-000: due, vae changed (5 rows)" in capsys.readouterr().err


def test_help_does_not_import_the_model_libraries() -> None:
    code = "import sys, pipelines.latents; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_hub_id_is_pinned_to_the_commit_it_means_now(
    shards: str, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--someone--vae" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in vae.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert latents.main(arguments(shards, Path("someone/vae"), tmp_path / "latents")) == 0
    info = open_dataset(str(tmp_path / "latents"), "latents").require_whole().info
    assert info.config["vae"] == f"hub:someone/vae@{commit}"


def test_an_estimate_says_bytes_and_writes_nothing(
    shards: str, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latents.main(arguments(shards, vae, tmp_path / "latents", "--estimate")) == 0
    assert "for about 10 rows" in capsys.readouterr().out
    assert not (tmp_path / "latents").exists()
