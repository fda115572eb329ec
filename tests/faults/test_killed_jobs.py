"""SIGKILL at every kind of point of a small job, and a disk without room; then the same command again.

The job is the command of tests/support/copy_job.py; what is written must be the files of an undisturbed run,
to the byte.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from campaign import REJECTED, UNITS, Campaign, environment

KILLS = [
    "publish:1:before",  # nothing is there but a temporary dataset.json
    "publish:1:after",
    "index:1:before",
    "index:2:after",
    "process:2:before",
    "keep:6:after",  # in the middle of a unit
    "reject:1:after",
    "finish:3:after",  # an output is whole under its temporary name
    "commit:3:before",
    "remove:1:before",
    "replace:5:before",
    "replace:7:before",  # outputs are in place, their ledger entry is not
    "replace:12:after",
    "fsync:9:before",
    "fsync:20:after",
    "commit:8:after",  # all units are done, plan.json is not
]


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_job_goes_on_to_the_files_of_an_undisturbed_one(campaign: Campaign, kill: str) -> None:
    killed = campaign.run("--kill", kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    campaign.check_nothing_partial()
    campaign.check_goes_on()


@pytest.mark.parametrize("kill", ["replace:2:before", "remove:2:after", "replace:9:after"])
def test_a_redo_under_new_settings_that_is_killed_goes_on_too(campaign: Campaign, kill: str) -> None:
    assert campaign.run("--suffix", " of old").returncode == 0
    assert campaign.run("--kill", kill).returncode == -signal.SIGKILL
    done = campaign.run()
    assert done.returncode == 0, done.stderr
    campaign.check_whole()


def test_killed_at_its_next_publication_again_and_again_it_still_arrives(campaign: Campaign) -> None:
    for _ in range(3 * UNITS):
        done = campaign.run("--kill", "replace:6:before")
        campaign.check_nothing_partial()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    campaign.check_whole()


def test_two_drivers_on_one_directory_end_with_the_files_of_one(campaign: Campaign) -> None:
    processes = [campaign.start() for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    campaign.check_whole()


@pytest.fixture
def gone() -> Iterator[Callable[[subprocess.Popen[str]], None]]:
    """Remember every process below a driver, and at the end see that all are gone.

    A killed driver's Ray leaves some behind that hold nothing of the job and end by themselves within a minute or so of
    asking for a server that is dead too: its two agents, and workers that had not come up yet. Those are ended here.
    """
    found: list[psutil.Process] = []

    def remember(process: subprocess.Popen[str]) -> None:
        found.extend(psutil.Process(process.pid).children(recursive=True))

    yield remember
    bystanders = [process for process in found if is_bystander(process)]
    _, alive = psutil.wait_procs([process for process in found if process not in bystanders], timeout=30)
    for process in [*alive, *bystanders]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert found
    assert not alive


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return [p for p in psutil.Process(driver.pid).children(recursive=True) if is_actor(p)]


def is_actor(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # a zombie counts as gone too
        return "UnitActor" in " ".join(process.cmdline())
    return False


def is_bystander(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        words = [process.name(), *process.cmdline()]  # the name alone is cut off at 15 characters
        return any(known in word for known in ("Agent", "RuntimeEnv", "agent", "default_worker.py") for word in words)
    return False


RAY = ("--workers", "2", "--cpus-per-worker", "0.5", "--attempts", "5")


def test_killed_ray_workers_are_replaced_and_their_units_redone(
    campaign: Campaign, gone: Callable[[subprocess.Popen[str]], None], tmp_path: Path
) -> None:
    # One worker sleeps in a unit until it is killed; the others that die are whichever happen to be there.
    (tmp_path / "marks").mkdir()
    sleep = (f"{REJECTED}=reject", "b/k001=sleep:1")
    process = campaign.start(*RAY, "--marks", str(tmp_path / "marks"), "--trouble", *sleep)
    campaign.wait_for_entries(1, process)
    while not (tmp_path / "marks/b_k001-0").exists():
        time.sleep(0.01)
    gone(process)
    workers = workers_of(process)
    assert workers
    for worker in workers:
        worker.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    campaign.check_whole()


def test_a_killed_ray_driver_leaves_no_process_and_the_same_command_goes_on(
    campaign: Campaign, gone: Callable[[subprocess.Popen[str]], None]
) -> None:
    process = campaign.start(*RAY, "--trouble", f"{REJECTED}=reject", "b/k001=sleep")
    campaign.wait_for_entries(1, process)
    gone(process)
    workers = workers_of(process)
    process.kill()
    process.communicate(timeout=60)
    # They notice within seconds; until they are gone, what they are writing is theirs and stays.
    assert not psutil.wait_procs(workers, timeout=30)[1]
    campaign.check_nothing_partial()
    campaign.check_goes_on()


@pytest.mark.parametrize("limit", [20, 600, 4000])
def test_a_limit_on_file_size_ends_in_one_line_and_the_same_command_recovers(campaign: Campaign, limit: int) -> None:
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1));"
    code += "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    line = [sys.executable, "-c", code, str(limit), *campaign.command()[1:]]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=120)
    check_storage_error(campaign, ended, "the file would be larger than this process may write")
    campaign.check_goes_on()


def check_storage_error(campaign: Campaign, ended: "subprocess.CompletedProcess[str]", what: str) -> None:
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 4, ended.stderr
    assert last.startswith(f"error: {campaign.out}")
    assert what in last
    assert "make room or fix access, then run the same command" in last
    assert "Traceback" not in ended.stderr
    assert not [path for path in campaign.out.rglob("*") if ".tmp-" in path.name]
    campaign.check_nothing_partial()


@pytest.mark.parametrize("room", [0, 8, 24, 60, 100])
def test_a_full_disk_ends_in_one_line_and_the_same_command_recovers(
    campaign: Campaign, small_disk: Path, room: int
) -> None:
    on_disk = Campaign(campaign.shards, small_disk / "out", campaign.expected)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((256 - room) * 1024))
    check_storage_error(on_disk, on_disk.run(), "the disk is full")
    ballast.unlink()
    on_disk.check_goes_on()
