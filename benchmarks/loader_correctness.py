"""Are the batches right? `python -m benchmarks.loader_correctness [--write docs/loader-comparison.md]`

Every cell of the table is a run of that loader, in the environment that benchmarks.loader_speed describes: all ranks of
all world sizes are played in this process (benchmarks.loader_subjects), and the numbers of the samples of each global
batch are compared with those of one rank without workers. A cell says yes, no and what happened first, or that the
loader has no way to express it.
"""

import argparse
import itertools
import platform
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.loader_data import corpus, data_folder
from benchmarks.loader_subjects import (
    BOTH,
    BUCKETS,
    MIXTURE,
    PLAIN,
    SUBJECTS,
    CannotExpressError,
    Job,
    Subject,
    as_rank,
)

_WORLDS: Final = (1, 2, 3, 4, 6, 8)
_WORKERS: Final = (0, 1, 4)
_ACCUMULATIONS: Final = (1, 2, 4)
_BATCH: Final = 96  # samples of a global batch: every rank of every world gets as many in every micro-step
_BUCKETS: Final = ((64, 64), (48, 80), (80, 48))
_FIRST, _SECOND = 1150, 250  # samples of the two data sets: no multiple of the batch
_MANY: Final = 20_000
_REPEATS: Final = 15
_PACKAGES: Final = ("torch", "webdataset", "mosaicml-streaming", "litdata", "datasets", "torchdata")

Steps = list[list[int]]


class NotSoError(Exception):
    """What was to be shown does not hold; the message says what happened."""


def main() -> None:
    """Run and print; with --write, also into a file."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--write", type=Path, help="Markdown file")
    command.add_argument("--only", nargs="+", default=[], help="loaders by name")
    options = command.parse_args()
    warnings.filterwarnings("ignore")
    columns: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in SUBJECTS:
            if options.only and kind.name not in options.only:
                continue
            columns[kind.name] = list(_column(kind, Path(folder)))
            for row, cell in zip(ROWS, columns[kind.name], strict=True):
                print(f"{kind.name} | {row}: {cell}", flush=True)
    if options.write:
        options.write.write_text(_document(columns))


def _column(kind: type[Subject], folder: Path) -> Iterator[str]:
    few = _prepared(kind, folder / f"{kind.__name__}-few", _FIRST + _SECOND, _SECOND)
    many = _prepared(kind, folder / f"{kind.__name__}-many", _MANY, 24)
    for check in ROWS.values():
        if few is None or many is None:
            yield f"{kind.package} is not installed"
            continue
        try:
            yield check(many if check is resume_time else few) or "yes"
        except CannotExpressError:
            yield "cannot express"
        except NotSoError as difference:
            yield f"no: {difference}"
        except Exception as error:  # noqa: BLE001 - whatever a loader raises is its answer
            yield f"no: {type(error).__name__}: {' '.join(str(error).split())[:90]}"


def _prepared(kind: type[Subject], folder: Path, samples: int, second: int) -> Subject | None:
    folder.mkdir()
    subject = kind(corpus(samples, "alt", "fp16", data_folder(), buckets=_BUCKETS, width=64), second, folder)
    if not subject.available:
        return None
    subject.write()
    return subject


def steps_of(subject: Subject, kind: str, world: int = 1, accumulation: int = 1, workers: int = 0) -> Steps:
    """The global batches of an epoch, each sorted."""
    jobs = [_job(kind, rank, world, accumulation, workers, (None,)) for rank in range(world)]
    return _joined([[numbers for numbers, _ in _run(subject, job)] for job in jobs], accumulation)


def resumed(subject: Subject, kind: str, cuts: Sequence[int], worlds: Sequence[int]) -> Steps:
    """The global batches of an epoch that is broken off after each of `cuts` steps and taken up by the next world."""
    steps: Steps = []
    states: list[Any] = [None]
    for cut, world in zip([*cuts, None], worlds, strict=True):
        found, after = [], []
        for rank in range(world):
            with closing(_run(subject, _job(kind, rank, world, 1, 0, states))) as run:
                wanted = list(itertools.islice(run, None if cut is None else cut - len(steps)))
            found.append([numbers for numbers, _ in wanted])
            after.append(wanted[-1][1] if wanted else None)
        if cut is not None and None in after:
            raise CannotExpressError
        steps, states = steps + _joined(found, 1), after
    return steps


def _job(kind: str, rank: int, world: int, accumulation: int, workers: int, states: Sequence[Any]) -> Job:
    micro_batch = _BATCH // (world * accumulation)
    return Job(kind, rank, world, _BATCH, micro_batch, workers, states[min(rank, len(states) - 1)])


def _run(subject: Subject, job: Job) -> Iterator[tuple[list[int], Any]]:
    with as_rank(job):
        yield from subject.run(job)


def _joined(ranks: Sequence[Sequence[list[int]]], accumulation: int) -> Steps:
    lengths = [len(rank) for rank in ranks]
    if len(set(lengths)) > 1:
        raise NotSoError(f"ranks have from {min(lengths)} to {max(lengths)} batches")
    steps = [slice(start, start + accumulation) for start in range(0, lengths[0], accumulation)]
    return [sorted(i for rank in ranks for part in rank[step] for i in part) for step in steps]


def _same(expected: Steps, found: Steps, how: str) -> None:
    shared = min(len(expected), len(found))
    for number, (batch, other) in enumerate(zip(expected[:shared], found[:shared], strict=True), 1):
        if batch != other:
            common = sum((Counter(batch) & Counter(other)).values())
            raise NotSoError(f"{how}: batch {number} has {common} of {len(batch)} samples in common")
    if len(expected) != len(found):
        raise NotSoError(f"{how}: {len(found)} batches instead of {len(expected)}")


def any_world(kind: str) -> Callable[[Subject], str]:
    """Whether the global batches are the same at every world size."""

    def check(subject: Subject) -> str:
        expected = steps_of(subject, kind)
        if kind in (BUCKETS, BOTH):
            _pure(subject, expected)
        for world in _WORLDS[1:]:
            _same(expected, steps_of(subject, kind, world), f"{world} ranks")
        return ""

    return check


def _pure(subject: Subject, steps: Steps) -> None:
    for number, batch in enumerate(steps, 1):
        buckets = {subject.samples.bucket(i) for i in batch}
        if len(buckets) > 1:
            raise NotSoError(f"batch {number} has samples of {len(buckets)} buckets")


def any_workers(subject: Subject) -> str:
    """Whether threads or workers make no difference, on one rank and on two."""
    expected = steps_of(subject, _most(subject))
    for workers, world in itertools.product(_WORKERS, (1, 2)):
        _same(expected, steps_of(subject, _most(subject), world, workers=workers), f"{workers} workers, {world} ranks")
    return ""


def any_accumulation(subject: Subject) -> str:
    """Whether accumulation makes no difference, on one rank and on two."""
    expected = steps_of(subject, _most(subject))
    for accumulation, world in itertools.product(_ACCUMULATIONS, (1, 2)):
        found = steps_of(subject, _most(subject), world, accumulation)
        _same(expected, found, f"{accumulation} micro-steps, {world} ranks")
    return ""


def resume_anywhere(subject: Subject) -> str:
    """Whether an epoch that is broken off after any step goes on as if it had not been."""
    expected = steps_of(subject, _most(subject), 2)
    for cut in range(1, len(expected)):
        _same(expected, resumed(subject, _most(subject), [cut], [2, 2]), f"after step {cut}")
    return ""


def resume_twice(subject: Subject) -> str:
    """Whether it does when it is broken off twice."""
    expected = steps_of(subject, _most(subject), 2)
    third = len(expected) // 3
    _same(expected, resumed(subject, _most(subject), [third, 2 * third], [2, 2, 2]), "second time")
    return ""


def resume_elsewhere(subject: Subject) -> str:
    """Whether it does at other world sizes."""
    kind = _most(subject)
    for worlds in ((2, 3), (4, 2), (1, 8), (6, 4)):
        expected = steps_of(subject, kind, worlds[0])
        _same(expected, resumed(subject, kind, [len(expected) // 2], worlds), f"{worlds[0]} to {worlds[1]} ranks")
    return ""


def no_drops(kind: str) -> Callable[[Subject], str]:
    """Whether every sample is used as often as it should be in an epoch, at every world size."""

    def check(subject: Subject) -> str:
        expected = Counter(subject.numbers(kind))
        for world in _WORLDS:
            found: Counter[int] = Counter()
            for rank in range(world):
                job = _job(kind, rank, world, 1, 0, (None,))
                with as_rank(job):
                    found.update(subject.uses(job))
            dropped, repeated = (expected - found).total(), (found - expected).total()
            if dropped or repeated:
                raise NotSoError(f"{world} ranks: {dropped} dropped, {repeated} repeated of {expected.total()}")
        return ""

    return check


def resume_time(subject: Subject) -> str:
    """CPU seconds to the first batch after a resume at 99 % of an epoch, over those of a cold start."""
    with closing(_run(subject, _job(PLAIN, 0, 1, 1, 0, (None,)))) as run:
        state = [state for _, state in itertools.islice(run, int(0.99 * subject.first / _BATCH))][-1]
    if state is None:
        raise CannotExpressError
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _, late in itertools.product(range(_REPEATS), seconds):
        started = time.process_time()
        with closing(_run(subject, _job(PLAIN, 0, 1, 1, 0, (state if late else None,)))) as run:
            next(run)
        seconds[late].append(time.process_time() - started)
    cold, late = (min(seconds[which]) for which in (False, True))
    return f"{'yes' if late <= 1.1 * cold else 'no'}: {late / cold:.2f} times ({1e3 * late:,.1f} ms)"


def _most(subject: Subject) -> str:
    """The most demanding kind of data that the loader can express."""
    for kind in (BOTH, MIXTURE, BUCKETS):
        try:
            with closing(_run(subject, _job(kind, 0, 1, 1, 0, (None,)))) as run:
                next(run)
            return kind
        except CannotExpressError:
            continue
    return PLAIN


ROWS: Final[dict[str, Callable[[Subject], str]]] = {
    "same global batches at world size 1, 2, 3, 4, 6, 8": any_world(PLAIN),
    "... in three buckets, one a batch": any_world(BUCKETS),
    "... of a mixture, the second data set twice an epoch": any_world(MIXTURE),
    "... of the mixture in three buckets, one a batch": any_world(BOTH),
    "... with 0, 1, 4 threads or workers": any_workers,
    "... with 1, 2, 4 micro-steps a step": any_accumulation,
    "resumed after any step": resume_anywhere,
    "resumed twice in one epoch": resume_twice,
    "resumed at another world size (2 to 3, 4 to 2, 1 to 8, 6 to 4)": resume_elsewhere,
    "0 dropped and 0 repeated in an epoch": no_drops(PLAIN),
    "... in three buckets": no_drops(BUCKETS),
    "... of the mixture": no_drops(MIXTURE),
    "... of the mixture in three buckets": no_drops(BOTH),
    "first batch after a resume at 99 % within 1.1 times a cold start": resume_time,
}


def _document(columns: dict[str, list[str]]) -> str:
    names = list(columns)
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    lines += [f"| {row} | {' | '.join(columns[name][i] for name in names)} |" for i, row in enumerate(ROWS)]
    versions = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    return f"""# Loaders compared: are the batches right?

Made by `python -m benchmarks.loader_correctness --write docs/loader-comparison.md`; every cell is a run of that loader
on the same samples: {_FIRST:,} in three buckets and a second data set of {_SECOND}, global batches of {_BATCH}. All
ranks are played in one process, each as a node of its own, and compared with one rank without workers. "With threads or
workers", "micro-steps" and "resumed" are done on the most demanding data that a loader can express: the mixture in
buckets, else the mixture, else buckets, else one data set. latentmill also draws among two caption variants of the
first data set and drops captions; its batches hold samples of both data sets, where one stream of mosaicml-streaming
makes up a batch.

mosaicml-streaming has its canonical nodes fixed at 24, which all world sizes divide; it and litdata are read in batches
of a device, of which micro-steps are slices. torchdata's StatefulDataLoader reads a list with torch's
`DistributedSampler`. latentmill carries what is left of an epoch into the next, so its uses are told apart by visit and
counted until each sample had its turn. Resume times are CPU time, which other work on the machine does not change much,
over {_MANY:,} samples with everything loaded: the best of {_REPEATS} each, in turns.

{versions}; Python {platform.python_version()}.

{chr(10).join(lines)}
"""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
