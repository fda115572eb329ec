"""SA-1B: `sa_N.jpg` beside `sa_N.json` with about a hundred masks. It has no captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curation.refusal import Refusal
from curation.sources.base import JSON, ImageSample, image_member, member, with_optional
from curation.sources.metadata import read_json
from schemas.status import RejectReason


@dataclass(frozen=True, slots=True)
class SamSource:
    """SA-1B as released, in tars. The JSON is read only with `masks`, and is then all of `extra`.

    With masks it goes by another name, so that datasets made with and without them are never taken for one another.
    """

    masks: bool = False
    version: int = field(default=1, init=False)
    container: Literal["tar"] = field(default="tar", init=False)

    @property
    def name(self) -> str:
        """`sam`, or `sam-masks`."""
        return "sam-masks" if self.masks else "sam"

    def members(self, extensions: Sequence[str]) -> tuple[str, ...] | Refusal:
        found = with_optional(extensions, *(("json",) if self.masks else ()))
        if self.masks and not isinstance(found, Refusal) and len(found) == 1:
            return Refusal(RejectReason.BAD_METADATA, "masks were asked for, and there is no json")
        return found

    def sample(self, key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
        image = image_member(tuple(members))
        if isinstance(image, Refusal):
            return image
        record: dict[str, JSON] | Refusal = {}
        if self.masks:
            record = read_json(member(members, "json") or b"")
        return record if isinstance(record, Refusal) else ImageSample(key, members[image], extra=record)
