"""img2dataset's process: found, checked, run, stopped, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from standin_img2dataset import make_standin, set_defects

from curation.ingest.downloader import Downloader, make_environment
from curation.ingest.metadata_plan import DownloadRow
from schemas.errors import UserError

ROWS = [DownloadRow(f"{n:09d}", f"http://standin/{n}.jpg", None, {}) for n in range(4)]


def test_the_version_is_that_of_the_other_environment(standin: str) -> None:
    assert Downloader(standin).check() == "1.47.0"


def test_an_interpreter_that_is_not_there_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be run .*pipelines\.ingest --make-environment DIR"):
        Downloader(str(tmp_path / "python")).check()


def test_an_environment_without_img2dataset_is_told_in_one_line(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(UserError, match=r"img2dataset cannot be imported \(ModuleNotFoundError"):
        Downloader(str(python)).check()


def test_a_program_that_is_no_python_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"--img2dataset true: no Python interpreter, it answers nothing\. Make"):
        Downloader("true").check()


def test_a_version_of_years_ago_is_refused(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UserError, match=r"img2dataset 1\.25\.4, needed is img2dataset>=1\.47"):
        Downloader(make_standin(tmp_path / "old", pictures, version="1.25.4")).check()


def test_a_download_writes_into_its_folder_and_ends(standin: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert Downloader(standin).download(ROWS, folder)
    assert {file.name for file in (folder / "out").iterdir()} == {"00000.tar", "00000.parquet", "00000_stats.json"}


def test_a_process_that_fails_is_told_with_its_last_words(standin: str, pictures: Path, tmp_path: Path) -> None:
    set_defects(pictures, exit=3)
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(RuntimeError, match="status 3: something went wrong inside"):
        Downloader(standin).download(ROWS, folder)


def test_a_process_that_hangs_is_stopped_and_what_it_wrote_stays(standin: str, pictures: Path, tmp_path: Path) -> None:
    set_defects(pictures, hang=600)
    folder = tmp_path / "work"
    folder.mkdir()
    assert not Downloader(standin, stall=3.0).download(ROWS, folder)
    assert (folder / "out/00000.tar").stat().st_size > 0
    assert not _alive(folder)


def test_when_its_parent_is_killed_the_process_and_its_children_end(
    standin: str, pictures: Path, tmp_path: Path
) -> None:
    set_defects(pictures, hang=600)
    folder = tmp_path / "work"
    folder.mkdir()
    code = (
        "from pathlib import Path; from curation.ingest.downloader import Downloader; "
        "from curation.ingest.metadata_plan import DownloadRow; "
        f"rows = [DownloadRow('k', 'http://standin/0.jpg', None, {{}})]; "
        f"Downloader({standin!r}).download(rows, Path({str(folder)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not _alive(folder):
            assert parent.poll() is None
            time.sleep(0.05)
        children = _alive(folder)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"timeout": 0}, {"retries": -1}, {"stall": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        Downloader("python", **wrong)


def test_an_environment_that_cannot_be_made_is_told_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"-m venv .* failed, see above"):
        make_environment(str(tmp_path / "file" / "env"))


def _alive(folder: Path) -> list[psutil.Process]:
    """The processes that work in `folder`."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == os.path.realpath(folder) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
