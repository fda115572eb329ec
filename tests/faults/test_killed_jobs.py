"""SIGKILL at every kind of point of a small job, and a disk without room; then the same command again.

The job is the command of tests/support/copy_job.py; what is written must be the files of an undisturbed run,
to the byte.
"""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from campaign import KILLS, RAY, REJECTED, UNITS, Campaign
from ray_processes import all_gone, workers_of


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


Remember = Callable[[int], None]


@pytest.fixture
def gone() -> Iterator[Remember]:
    """Remember every process below a driver, and at the end see that all are gone."""
    with all_gone() as remember:
        yield remember


def test_killed_ray_workers_are_replaced_and_their_units_redone(
    campaign: Campaign, gone: Remember, tmp_path: Path
) -> None:
    # One worker sleeps in a unit until it is killed; the others that die are whichever happen to be there.
    (tmp_path / "marks").mkdir()
    sleep = (f"{REJECTED}=reject", "b/k001=sleep:1")
    process = campaign.start(*RAY, "--marks", str(tmp_path / "marks"), "--trouble", *sleep)
    campaign.wait_for_entries(1, process)
    while not (tmp_path / "marks/b_k001-0").exists():
        time.sleep(0.01)
    gone(process.pid)
    workers = workers_of(process.pid)
    assert workers
    for worker in workers:
        worker.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    campaign.check_whole()


def test_a_killed_ray_driver_leaves_no_process_and_the_same_command_goes_on(campaign: Campaign, gone: Remember) -> None:
    process = campaign.start(*RAY, "--trouble", f"{REJECTED}=reject", "b/k001=sleep")
    campaign.wait_for_entries(1, process)
    gone(process.pid)
    workers = workers_of(process.pid)
    process.kill()
    process.communicate(timeout=60)
    # They notice within seconds; until they are gone, what they are writing is theirs and stays.
    assert not psutil.wait_procs(workers, timeout=30)[1]
    campaign.check_nothing_partial()
    campaign.check_goes_on()


@pytest.mark.parametrize("limit", [20, 600, 4000])
def test_a_limit_on_file_size_ends_in_one_line_and_the_same_command_recovers(campaign: Campaign, limit: int) -> None:
    ended = campaign.run_limited(limit)
    campaign.check_storage_error(ended, "the file would be larger than this process may write")
    campaign.check_goes_on()


@pytest.mark.parametrize("room", [0, 8, 24, 60, 100])
def test_a_full_disk_ends_in_one_line_and_the_same_command_recovers(
    campaign: Campaign, small_disk: Path, room: int
) -> None:
    on_disk = Campaign(campaign.shards, small_disk / "out", campaign.expected)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((256 - room) * 1024))
    on_disk.check_storage_error(on_disk.run(), "the disk is full")
    ballast.unlink()
    on_disk.check_goes_on()
