"""The faults of `benchmarks.fault_campaign`: each a function that makes one, or several, while a job writes."""

import random
import re
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import refusing_store
from campaign import KEYS, KILLS, RAY, REJECTED, UNITS
from dataset_files import Files, broken_among, data_of, units_done, units_in_flight
from ray_cluster import cluster_of
from ray_processes import all_gone, workers_of
from served_captions import ServedJob
from small_disk import NoMountError, mounted

from benchmarks.fault_step import Ground, SkippedError, Step, Strike, demand
from schemas.errors import ExitCode, StorageError

NAPS = ("--trouble", *(f"{key}={'reject' if key == REJECTED else 'nap'}" for key in KEYS))
"""Each row takes a while, so that a fault on Ray finds work under way."""


class Kind(NamedTuple):
    """A kind of fault: what happens, where, how often by default, and one step of it."""

    fault: str
    where: str
    times: int
    step: Callable[[Ground, Step, random.Random, int], None]


def named_point(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """SIGKILL of the driver by itself at a point of `KILLS`."""
    code = ground.jobs[0].run(ground.campaign(step.out).arguments("--kill", KILLS[number % len(KILLS)]))
    demand(code == -signal.SIGKILL, f"it was not killed: {code}")
    step.ended(code, "", well=False)
    step.struck()
    ground.again(step)


def moment(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """SIGKILL of the driver at a random moment, and of up to five after it."""
    arguments = ground.campaign(step.out).arguments()
    for run in range(moments.randrange(1, 7)):
        code = ground.jobs[0].run(arguments, after=moments.uniform(0.0, ground.longest))
        demand(code in (0, -signal.SIGKILL), ground.jobs[0].said)
        if run == 0:  # the machine's pace changes, and a process takes as long to end as its job took
            ground.longest *= 0.7 if units_done(step.out) == UNITS else 1.1
        step.ended(code, "", well=code == 0)
        if code == 0:
            return
        step.struck()
    ground.again(step)


def two_drivers(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """A second driver on the same output; every other one is killed."""
    arguments, (first, second) = ground.campaign(step.out).arguments(), ground.jobs
    first.start(arguments)
    begins, deadline = moments.randrange(UNITS - 1), time.monotonic() + 60
    while units_done(step.out) < begins and time.monotonic() < deadline:
        time.sleep(0.005)
    second.start(arguments, after=moments.uniform(0.0, ground.longest) if number % 2 else None)
    step.struck(len(units_in_flight(step.out, of_dead=False)))
    codes = (first.wait(), second.wait())
    demand(codes[1] == 0 or (number % 2 and codes[1] == -signal.SIGKILL), f"exit codes {codes}: {second.said}")
    step.ended(codes[0], first.said, well=codes[1] == 0)
    demand(codes[0] == 0, first.said)
    if codes[1]:
        ground.again(step)


def ray_worker(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """SIGKILL of one Ray worker after the other."""
    campaign = ground.campaign(step.out)
    with all_gone() as remember, campaign.start(*RAY, *NAPS) as process:
        campaign.wait_for_entries(1, process)
        for _ in range(6):
            time.sleep(moments.uniform(0.0, 2.0))
            workers = workers_of(process.pid)
            if not workers:
                break
            remember(process.pid)
            victim = moments.choice(workers)
            victim.kill()
            psutil.wait_procs([victim], timeout=10)
            step.struck()
        _, said = process.communicate(timeout=180)
    step.ended(process.returncode, said)


def ray_driver(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """SIGKILL of the driver of two Ray workers."""
    campaign = ground.campaign(step.out)
    with all_gone() as remember, campaign.start(*RAY, *NAPS) as process:
        campaign.wait_for_entries(1, process)
        time.sleep(moments.uniform(0.0, 4.0))
        remember(process.pid)
        workers = workers_of(process.pid)
        process.kill()
        demand(not psutil.wait_procs(workers, timeout=30)[1], "workers outlive their driver")
        process.wait()
    step.ended(process.returncode, "", well=False)
    step.struck()
    ground.again(step)


def lost_node(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """One of a cluster's two nodes goes, with the worker on it."""
    if ground.nodes is None:
        ground.nodes = ground.stack.enter_context(cluster_of(2))
    campaign = ground.campaign(step.out)
    with campaign.start("--workers", "2", "--ray-address", ground.nodes.address, "--attempts", "5", *NAPS) as process:
        campaign.wait_for_entries(1, process)
        time.sleep(moments.uniform(0.0, 2.0))
        ground.nodes.say("lose")
        for _ in range(50):  # its worker notices within seconds
            if units_in_flight(step.out):
                break
            time.sleep(0.1)
        step.struck()
        _, said = process.communicate(timeout=180)
    ground.nodes.say("add")
    step.ended(process.returncode, said)


def file_limit(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """No file may grow past a random size (RLIMIT_FSIZE)."""
    campaign = ground.campaign(step.out)
    ended = campaign.run_limited(moments.randrange(1, max(map(len, ground.expected.values()))))
    campaign.check_storage_error(ended, "the file would be larger than this process may write")
    step.ended(ended.returncode, "", well=False)
    step.struck(unit_named(ended.stderr))
    ground.again(step)


def full_disk(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """A tmpfs of 256 KiB with random room."""
    if ground.disk is None:
        try:
            ground.disk = ground.stack.enter_context(mounted(ground.folder / "disk"))
        except NoMountError as error:
            raise SkippedError(str(error)) from None
    step.out, ballast = ground.disk / f"out-{number}", ground.disk / "ballast"
    ballast.write_bytes(bytes((256 - moments.randrange(0, 130, 4)) * 1024))
    campaign = ground.campaign(step.out)
    ended = campaign.run()
    if ended.returncode:
        campaign.check_storage_error(ended, "the disk is full")
        step.ended(ended.returncode, "", well=False)
        step.struck(unit_named(ended.stderr))
    ballast.unlink()
    ground.again(step)


def unit_named(said: str) -> int:
    """How many units the last line of a failed run names: 1, or 0 where a file of the whole dataset failed."""
    return int(re.search(r"[abc]-\d{5}\.", said.splitlines()[-1]) is not None)


def refusing(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """A store that refuses: for good from a random upload on, or now and then; every third time it stored it all the
    same. Until it is well again, or lets a run through."""
    shards = [f"{ground.folder}/in/*.tar"]
    first, error = moments.randrange(1, 40), moments.choice([refusing_store.slow_down, refusing_store.denied])

    def for_good(upload: int, attempt: int) -> Exception | None:
        return error(upload, attempt) if upload >= first else None

    def at_times(upload: int, attempt: int) -> Exception | None:
        return refusing_store.slow_down(upload, attempt) if moments.random() < 0.5 else None

    with refusing_store.registered() as store:
        refuse = at_times if number % 2 else for_good
        code = ExitCode.STORAGE
        while code is not ExitCode.OK:
            store.begin(refuse, answer_lost=number % 3 == 0)
            try:
                code = refusing_store.run(shards).exit_code
            except StorageError:  # nothing could be written at all
                code = ExitCode.STORAGE
            step.runs += 1
            files = refusing_store.files()
            entries = [content for path, content in files.items() if path.startswith("ledger/")]
            wrong = broken_among(entries, files.get, ground.expected)
            demand(not wrong, f"the store shows {wrong[:3]}")
            if store.refused:
                hit = {found[0] for path in store.refused if (found := re.search(r"[abc]-\d{5}", path))}
                step.strikes.append(Strike(len(entries), len(hit)))
            if refuse is for_good:
                refuse = refusing_store.never
        step.compare(refusing_store.files())
    demand(not list(Path(tempfile.gettempdir()).glob("latentmill-*")), "a temporary file is left")


def server(ground: Ground, step: Step, moments: random.Random, number: int) -> None:
    """SIGKILL of the server that a captioning job started: of three in a row; every third time whatever it is at."""
    job, expected, seconds = served_job(ground)
    step.expected, step.keys = expected, job.keys()
    with job.start(step.out) as process:
        for _ in range(3):
            while process.poll() is None and not (job.servers() and (number % 3 == 2 or captioning(step))):
                time.sleep(0.05)
            time.sleep(moments.uniform(0.0, seconds / 4))
            for running in job.servers():
                in_flight = len(units_in_flight(step.out, of_dead=False))
                with suppress(psutil.NoSuchProcess):
                    running.kill()
                    running.wait(10)
                    step.struck(in_flight)
        _, said = process.communicate(timeout=300)
    demand(not job.processes(), "a server is left")
    unproven = process.returncode == ExitCode.STOPPED  # one that dies before it ever answered ends the job
    step.ended(process.returncode, said, well=not unproven)
    if unproven:
        demand("before it captioned" in said, said)
        with job.start(step.out) as process:
            _, said = process.communicate(timeout=300)
        step.ended(process.returncode, said)


def captioning(step: Step) -> bool:
    """Whether a unit is under way."""
    return bool(units_in_flight(step.out, of_dead=False))


def served_job(ground: Ground) -> tuple[ServedJob, Files, float]:
    """The job, its files where nothing disturbs it, and its seconds."""
    if ground.served is None:
        (ground.folder / "served").mkdir()
        job = ServedJob(ground.folder / "served", ground.serve_python)
        if job.trouble:
            raise SkippedError(f"{job.trouble}; name a Python that has `transformers serve` by --serve-python")
        job.prepare()
        start = time.perf_counter()
        with job.start(ground.folder / "captions") as process:
            _, said = process.communicate(timeout=300)
        demand(process.returncode == 0, said)
        ground.served = (job, data_of(ground.folder / "captions"), time.perf_counter() - start)
    return ground.served


KINDS = {
    "point": Kind(
        "SIGKILL, by itself",
        f"inline driver, at {len(KILLS)} named points",
        len(KILLS),
        named_point,
    ),
    "moment": Kind("SIGKILL", "inline driver, at random moments, again and again", 100, moment),
    "two-drivers": Kind("a second driver on the same output", "inline; every other one gets SIGKILL", 10, two_drivers),
    "ray-worker": Kind("SIGKILL", "a Ray worker of two", 20, ray_worker),
    "ray-driver": Kind("SIGKILL", "the driver of two Ray workers", 10, ray_driver),
    "node": Kind("node lost", "one of two nodes of a Ray cluster", 3, lost_node),
    "limit": Kind("no file may grow past a random size", "RLIMIT_FSIZE of the driver", 10, file_limit),
    "disk": Kind("disk full", "a tmpfs with random room", 10, full_disk),
    "store": Kind("object store refuses", "in memory; for good, now and then, answer lost", 30, refusing),
    "server": Kind("SIGKILL", "`transformers serve` of a captioning job", 5, server),
}
