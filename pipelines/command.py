"""What every command shares: how it starts, how it ends, and the arguments that all jobs take."""

import argparse
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from schemas.errors import ExitCode, StorageError, UserError

if TYPE_CHECKING:
    from curation.execution.job import Job, JobOptions
    from curation.execution.summary import JobSummary

_LOG_WIDTH = 200

EXIT_CODES = """exit codes:
  0 done (or nothing to do)   1 some units were set aside   2 arguments, input or output cannot be used
  3 a guard stopped the job   4 the disk is full or not writable   130/143 ended by SIGINT/SIGTERM"""


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line; the whole usage stays with --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(int(ExitCode.BAD_INPUT), f"error: {message}. See {self.prog} --help.\n")


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The argument parser of `python -m pipelines.NAME`."""
    return _Parser(
        prog=f"python -m pipelines.{name}",
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command's `main` and exit. A `UserError` becomes one line on stderr and its exit code."""
    _quieten_libraries()
    try:
        code = main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted before the end; run the same command to go on", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    sys.stdout.flush()
    sys.exit(int(code))


def console() -> Console:
    """Where progress and summaries go: stderr, so that stdout stays for results."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _LOG_WIDTH)


def add_job_arguments(
    command: argparse.ArgumentParser,
    *,
    unit_rows: int | None = None,
    workers_hint: str = "worker processes",
    estimate: str = "",
) -> None:
    """The arguments of a job over units. `unit_rows` is the default for stages whose shards are sliced; `estimate` says
    what --estimate does, of stages that have it."""
    group = command.add_argument_group("how it runs (none of this changes what is written)")
    group.add_argument("--workers", type=_positive, default=1, metavar="N", help=f"{workers_hint} (default 1)")
    group.add_argument(
        "--executor",
        choices=("auto", "inline", "ray"),
        default="auto",
        help="auto (default): ray with several workers or --ray-address, else inline in this process",
    )
    group.add_argument("--ray-address", metavar="ADDRESS", help="join this Ray cluster; default: a local one")
    group.add_argument(
        "--cpus-per-worker", type=_amount, default=1.0, metavar="N", help="CPUs that Ray reserves a worker (default 1)"
    )
    group.add_argument(
        "--gpus-per-worker",
        type=_amount,
        metavar="N",
        help="GPUs that Ray reserves a worker (default 1 with --device cuda, else 0)",
    )
    group.add_argument(
        "--max-rejected",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="stop when more than this share of rows is rejected, such as 5%% (default 100%%: never)",
    )
    group.add_argument(
        "--attempts", type=_positive, default=3, metavar="N", help="tries before a unit is set aside (default 3)"
    )
    if unit_rows is not None:
        group.add_argument(
            "--unit-rows",
            type=not_negative,
            metavar="N",
            help=f"rows a unit of work, 0 for whole shards (default {unit_rows}, or as the output was laid out)",
        )
    group.add_argument("--dry-run", action="store_true", help="say what would run and why; write nothing")
    if estimate:
        group.add_argument("--estimate", action="store_true", help=f"{estimate}; write nothing")
    group.add_argument("--summary-json", metavar="FILE", help="also write the final summary here as JSON")


def job_options(arguments: argparse.Namespace) -> "JobOptions":
    """`JobOptions` from the parsed arguments."""
    from curation.execution.job import JobOptions

    device = getattr(arguments, "device", "cpu")
    gpus = arguments.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if str(device).startswith("cuda") else 0.0
    use_ray = arguments.executor == "ray" or (
        arguments.executor == "auto" and (arguments.workers > 1 or arguments.ray_address is not None)
    )
    if arguments.executor == "inline" and (arguments.workers > 1 or arguments.ray_address):
        raise UserError("--executor inline runs in this process alone; leave out --workers and --ray-address.")
    return JobOptions(
        workers=arguments.workers,
        use_ray=use_ray,
        ray_address=arguments.ray_address,
        cpus_per_worker=arguments.cpus_per_worker,
        gpus_per_worker=gpus,
        attempts=arguments.attempts,
        max_rejected=arguments.max_rejected,
    )


def finish(
    arguments: argparse.Namespace, job: "Job", after: Callable[["JobSummary"], None] = lambda summary: None
) -> "JobSummary":
    """Run `job` (or only explain it, with --dry-run), then `after`, write --summary-json, and return the summary."""
    from curation.execution.job import dry_run, run_job

    require_place("--summary-json", arguments.summary_json)
    out = console()
    summary = dry_run(job, out) if arguments.dry_run else run_job(job, job_options(arguments), out)
    after(summary)
    if arguments.summary_json:
        text = json.dumps(summary.as_json(), indent=2, sort_keys=True) + "\n"
        try:
            Path(arguments.summary_json).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"--summary-json {arguments.summary_json}: cannot be written ({error.strerror}); the job itself ended "
                f"with exit code {int(summary.exit_code)}. Give another file."
            ) from None
    if summary.stopped_by:
        print(f"error: {summary.stopped_by}", file=sys.stderr)
    return summary


def require_place(flag: str, file: str | Path | None) -> None:
    """Raise `UserError` before long work, not after it, if what `flag` names has nowhere to go."""
    if file and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        raise UserError(f"{flag} {file}: not a file in a directory that exists. Give another.")


def _quieten_libraries() -> None:
    """Progress bars and advice of libraries would bury our own lines."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def not_negative(text: str) -> int:
    """A whole number from 0 up, as an argument's type."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return value


def _share(text: str) -> float:
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1 (or 0% and 100%)")
    return value
