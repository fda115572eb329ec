"""A folder of pictures: `photo.jpg`, and optionally `photo.txt`, `photo.json` and `photo.cls` beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curation.refusal import Refusal
from curation.sources.base import ImageSample, with_optional
from curation.sources.webdataset import captioned_sample


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Files of a folder, read by the same rules as the `webdataset` source."""

    name: str = field(default="folder", init=False)
    version: int = field(default=1, init=False)
    container: Literal["folder"] = field(default="folder", init=False)

    def members(self, extensions: Sequence[str]) -> tuple[str, ...] | Refusal:
        return with_optional(extensions, "txt", "json", "cls")

    def sample(self, key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
        return captioned_sample(key, members)
