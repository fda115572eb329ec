"""From tar members (or files of a folder) to samples: what belongs together, and what cannot be told.

The key is the member's path up to the first dot of its base name, folders kept, a leading `./` dropped; the rest is the
extension (webdataset's rule). Members of one key must be adjacent and their extensions distinct. A key for which that
does not hold is refused as a whole, with the reason, so that no picture ever meets another picture's caption.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from curation.shards.tar_scan import Member
from schemas.status import RejectReason

ARCHIVE_FAULT_KEY = "(archive)"
"""The key of the row that stands for members which a damaged archive lost."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a shard's index. `refused` is None if its members can be read."""

    key: str
    extensions: tuple[str, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    refused: RejectReason | None = None
    detail: str = ""


@dataclass(slots=True)
class _Open:
    members: list[tuple[str, Member]] = field(default_factory=list)
    runs: int = 1
    utf8: bool = True


Split = Callable[[str], "tuple[str, str] | None"]


def split_at_first_dot(name: str) -> tuple[str, str] | None:
    """(key, extension) by webdataset's rule; None if there is no key or no extension."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension) if stem and dot and extension else None


def split_at_last_dot(name: str) -> tuple[str, str] | None:
    """(key, extension) for files of a folder, whose names often hold dots."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.rpartition(".")
    return (folder + slash + stem, extension) if stem and dot and extension else None


def relative_name(name: str) -> str:
    """`name` without the `./` that many archives put before it."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def group_members(members: Iterable[Member], fault: str = "", split: Split = split_at_first_dot) -> list[Sample]:
    """The samples of a shard in order of first appearance, one for every key.

    `fault` (why members may be missing at the end) becomes a row of its own, so that it is counted as refused.
    """
    groups: dict[str, _Open] = {}
    previous = ""
    for member in members:
        name = relative_name(member.name)
        parts = split(name)
        key, extension = parts if parts else (name, "")
        group = groups.setdefault(_printable(key), _Open())
        if group.members and key != previous:
            group.runs += 1
        group.members.append((extension, member))
        group.utf8 = group.utf8 and name == _printable(name)
        if parts:  # a nameless neighbour, such as the ._NAME.jpg that macOS adds, parts no sample in two
            previous = key
    samples = [_sample(key, group) for key, group in groups.items()]
    if fault:
        key = ARCHIVE_FAULT_KEY
        while key in groups:
            key += "'"
        samples.append(Sample(key, (), (), (), RejectReason.TRUNCATED_MEMBER, _printable(fault)))
    return samples


def _sample(key: str, group: _Open) -> Sample:
    extensions = tuple(_printable(extension) for extension, _ in group.members)
    refused, detail = _refusal(key, group, extensions)
    return Sample(
        key=key,
        extensions=extensions,
        offsets=tuple(member.offset for _, member in group.members),
        sizes=tuple(member.size for _, member in group.members),
        refused=refused,
        detail=detail,
    )


def _refusal(key: str, group: _Open, extensions: tuple[str, ...]) -> tuple[RejectReason | None, str]:
    if "" in extensions:
        return RejectReason.BAD_KEY, f"member {key!r} has no name or no extension to tell what it is"
    if key.startswith("/") or ".." in key.split("/") or not group.utf8:
        return RejectReason.BAD_KEY, f"member path {key!r} is absolute, has '..' in it, or is not UTF-8"
    odd = [
        (extension, member.odd) for extension, (_, member) in zip(extensions, group.members, strict=True) if member.odd
    ]
    if odd:
        return RejectReason.BAD_KEY, f"the member with extension {odd[0][0]!r} is {odd[0][1]}, not a regular file"
    twice = sorted({e for e in extensions if extensions.count(e) > 1})
    if twice:
        return RejectReason.DUPLICATE_KEY, f"{extensions.count(twice[0])} members with extension {twice[0]!r}"
    if group.runs > 1:
        return RejectReason.INTERLEAVED_KEY, f"members {', '.join(extensions)} are not adjacent; sort the tar by name"
    short = [e for e, (_, member) in zip(extensions, group.members, strict=True) if not member.whole]
    if short:
        return RejectReason.TRUNCATED_MEMBER, f"the archive ends inside the member {short[0]!r}"
    return None, ""


def _printable(text: str) -> str:
    """`text` with bytes that are not UTF-8 shown as escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
