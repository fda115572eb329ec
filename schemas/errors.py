"""The errors that a person may meet, and the exit code each command ends with.

A `UserError` is told in one line (what happened, where, what to do next) and never shows a traceback.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    OK = 0
    UNITS_FAILED = 1  # the job ended, but some units were set aside; the summary names them
    BAD_INPUT = 2  # arguments, shards, model or output directory cannot be used as given
    STOPPED = 3  # a guard stopped the job: too many rejects, or the start-up self-check failed
    STORAGE = 4  # the disk is full or not writable
    INTERRUPTED = 130  # SIGINT
    TERMINATED = 143  # SIGTERM


class UserError(Exception):
    """Something the user can mend. `str(error)` is one line: what, where, and what to do."""

    exit_code: ExitCode = ExitCode.BAD_INPUT
    alike: bool = False  # whether all processes of a training run raise it together, so that one tells it for all


class SchemaError(UserError):
    """A table or record on disk is not what its schema declares."""


class DatasetError(UserError):
    """A dataset directory belongs to something else, is incomplete, or cannot be read."""


class DamagedFileError(DatasetError):
    """A file of a dataset is there and its bytes are damaged. It costs a job the unit that reads it, and no other."""


class CorruptSampleError(DatasetError):
    """A sample that training needs is damaged, or its storage does not answer."""

    alike = True


class GuardError(UserError):
    """A guard stopped the job before it could do harm."""

    exit_code = ExitCode.STOPPED
    alike = True


class StorageError(UserError):
    """The disk is full, read-only, or refuses us."""

    exit_code = ExitCode.STORAGE


class InterruptedJobError(UserError):
    """SIGINT or SIGTERM arrived. Nothing partial was published."""

    alike = True

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code
