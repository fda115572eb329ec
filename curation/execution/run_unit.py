"""Do one unit, in whichever process: process, check, publish, ledger entry. Both executors call this."""

import platform
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from curation.execution.clock import PhaseClock
from curation.execution.stage import Stage, Unit, Worker
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import LedgerEntry, RunFacts
from schemas.errors import DamagedFileError, ExitCode, UserError

_MODULES = {"pillow": "PIL"} | {
    n: n for n in ("torch", "transformers", "diffusers", "spacy", "ray", "pyarrow", "numpy")
}


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A unit whose ledger entry is on disk."""

    unit: Unit
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class UnitFailed:
    """A unit that raised or whose worker died. `fatal` (an exit code) ends the whole job: trying again cannot help.

    `trace` is shown below the reason: the traceback, or the notes of a `UserError`.
    """

    unit: Unit
    reason: str
    trace: str = ""
    fatal: ExitCode | None = None


def run_unit(
    stage: Stage,
    worker: Worker,
    target: Target,
    unit: Unit,
    attempt: int,
    watch: Callable[[UnitWriter], None] = lambda writer: None,
) -> UnitDone | UnitFailed:
    """Do `unit` and publish it. `watch` is handed the writer at the start, for progress."""
    clock = PhaseClock()
    try:
        with UnitWriter(target, unit.planned, stage.spec.name) as writer:
            watch(writer)
            worker.process(unit, writer, clock)
            facts = RunFacts(round(clock.seconds, 3), clock.phases(), attempt, socket.gethostname(), _versions())
            return UnitDone(unit, writer.commit(stage.spec.fingerprint, unit.inputs, facts))
    except DamagedFileError as error:
        return UnitFailed(unit, str(error))
    except UserError as error:
        return UnitFailed(unit, str(error), "\n".join(getattr(error, "__notes__", ())), error.exit_code)
    except Exception as error:  # noqa: BLE001 - a unit may fail in any way; the failure is recorded and shown
        return UnitFailed(unit, f"{type(error).__name__}: {error}", traceback.format_exc())


def _versions() -> dict[str, str]:
    loaded = {name: _version(name) for name, module in sorted(_MODULES.items()) if module in sys.modules}
    return {"python": platform.python_version(), "latentmill": _version("latentmill"), **loaded}


@cache
def _version(package: str) -> str:
    """The installed version. Remembered: looking it up takes longer than writing a small unit."""
    return version(package)
