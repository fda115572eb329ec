"""What a source adapter is: it says which members of a sample to read, and makes an `ImageSample` of them.

Grouping tar members into samples and listing folders happens in curation.shards. Extensions reach an adapter as they
stand in the tar, without the leading dot: all that follows the first dot of the base name (webdataset's rule).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from curation.refusal import Refusal
from schemas.status import RejectReason

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

IMAGE_EXTENSIONS: Final = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif")
)
"""Extensions that name the picture of a sample. What the bytes are is found out when they are decoded."""


@dataclass(frozen=True, slots=True)
class ImageSample:
    """One sample as its source tells it. `image` is the file's bytes, not decoded; `extra` is all other metadata."""

    key: str
    image: bytes
    caption: str | None = None
    label: int | None = None
    extra: Mapping[str, JSON] = field(default_factory=dict)


class Source(Protocol):
    """An adapter for one way of keeping pictures.

    `version` is raised whenever the same members give another sample. `container` says where the members lie.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def container(self) -> Literal["tar", "folder"]: ...

    def members(self, extensions: Sequence[str]) -> tuple[str, ...] | Refusal:
        """Which members of a sample to read, the picture first; told from their extensions alone, so that a large
        member that nobody asked for is never read."""

    def sample(self, key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
        """The sample `key` from the bytes of the members that `members` named, by extension."""


def image_member(extensions: Sequence[str]) -> str | Refusal:
    """The one extension that names a picture, or why there is not exactly one."""
    plain = [e for e in extensions if e.lower() in IMAGE_EXTENSIONS]
    if len(plain) == 1:
        return plain[0]
    if plain:
        return Refusal(RejectReason.SEVERAL_IMAGES, f"{len(plain)} pictures in one sample: {', '.join(plain)}")
    dotted = [e for e in extensions if e.lower().rpartition(".")[2] in IMAGE_EXTENSIONS]
    if dotted:
        return Refusal(
            RejectReason.DOTTED_KEY,
            f"{', '.join(dotted)}: the key has a dot, so that it ends at the first one; rename the members",
        )
    return Refusal(RejectReason.NO_IMAGE, f"no picture among {', '.join(extensions) or 'no members'}")


def with_optional(extensions: Sequence[str], *wanted: str) -> tuple[str, ...] | Refusal:
    """The picture's extension, then those of the `wanted` members that are there, in the order asked for."""
    image = image_member(extensions)
    if isinstance(image, Refusal):
        return image
    found = [image]
    for name in wanted:
        same = [e for e in extensions if e.lower() == name]
        if len(same) > 1:
            return Refusal(RejectReason.BAD_METADATA, f"{' and '.join(same)} in one sample; which one counts?")
        found += same
    return tuple(found)


def member(members: Mapping[str, bytes], name: str) -> bytes | None:
    """The bytes of the member whose extension is `name` in any case, or None."""
    return next((data for extension, data in members.items() if extension.lower() == name), None)
