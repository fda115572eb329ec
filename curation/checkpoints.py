"""Which checkpoint a name means, exactly: a hub id at a commit, or a local directory with these very files."""

import os
from dataclasses import dataclass

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from curation.shards.fingerprint import digest_directory
from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint to hand to `from_pretrained(source, revision=revision)`.

    `identity` is what goes into fingerprints: the hub id with its resolved commit, or the digest of a directory's
    files; never a path.
    """

    source: str
    revision: str | None
    identity: str

    @property
    def is_local(self) -> bool:
        """Whether it is a directory on this machine."""
        return self.revision is None


def resolve_checkpoint(name: str, revision: str | None, *, needs: tuple[str, ...] = ("config.json",)) -> Checkpoint:
    """The checkpoint that `name` (a local directory or a hub id) means now.

    `needs` are files that it must have; an entry `a|b` is satisfied by either. Raises `UserError` if the directory
    lacks one, or the hub does not have it (or cannot be reached and has not been before).
    """
    if os.path.isdir(name):
        _require_files(name, needs)
        if revision is not None:
            raise UserError(f"{name}: a local directory has no --revision. Leave it out.")
        try:
            return Checkpoint(os.path.abspath(name), None, f"files:{digest_directory(name)}")
        except OSError as error:
            raise UserError(
                f"{error.filename or name}: cannot be read ({error.strerror}). Check that it is there and readable."
            ) from None
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"{name}: no such directory, and no hub id (OWNER/NAME) either. Check the path.")
    file = needs[0].partition("|")[0]
    try:
        config = hf_hub_download(name, file, revision=revision)
    except HFValidationError:
        raise UserError(f"{name}: no such directory, and no hub id (OWNER/NAME) either. Check the path.") from None
    except RepositoryNotFoundError:
        raise UserError(f"{name}: the hub has no such model, or it needs a login. Check the name.") from None
    except RevisionNotFoundError:
        raise UserError(f"{name}: the hub has no revision {revision} of it. Check --revision.") from None
    except LocalEntryNotFoundError:
        raise UserError(
            f"{name}: no such directory, and no answer from the hub, which has not been asked for it before. "
            f"Check the path, or the network."
        ) from None
    except EntryNotFoundError:
        raise UserError(f"{name}: has no {file} on the hub, so not the checkpoint this stage needs.") from None
    except (HfHubHTTPError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{name}: not a local directory, and the hub gave an error ({lines[0][:160]}).") from None
    commit = os.path.basename(os.path.dirname(config))
    return Checkpoint(name, commit, f"hub:{name}@{commit}")


def _require_files(directory: str, needs: tuple[str, ...]) -> None:
    for need in needs:
        if not any(os.path.exists(os.path.join(directory, name)) for name in need.split("|")):
            missing = " or ".join(need.split("|"))
            raise UserError(f"{directory}: no {missing} there, so not the checkpoint this stage needs. Check the path.")
