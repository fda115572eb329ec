"""ImageNet as webdataset: `KEY.jpg` (or jpeg, JPEG) beside `KEY.cls`, and sometimes `KEY.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curation.refusal import Refusal
from curation.sources.base import ImageSample, image_member, member, with_optional
from curation.sources.metadata import read_json, read_label
from schemas.status import RejectReason


@dataclass(frozen=True, slots=True)
class ImageNetSource:
    """Labelled pictures: `label` is the class index in `cls`, without which a sample is refused. No captions; a JSON
    goes into `extra`. Unlabelled pictures are the `webdataset` source's."""

    name: str = field(default="imagenet", init=False)
    version: int = field(default=1, init=False)
    container: Literal["tar"] = field(default="tar", init=False)

    def members(self, extensions: Sequence[str]) -> tuple[str, ...] | Refusal:
        found = with_optional(extensions, "cls", "json")
        if not isinstance(found, Refusal) and "cls" not in [e.lower() for e in found]:
            return Refusal(RejectReason.BAD_METADATA, "no cls, so no class; read unlabelled pictures as webdataset")
        return found

    def sample(self, key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
        image = image_member(tuple(members))
        if isinstance(image, Refusal):
            return image
        label = read_label(member(members, "cls") or b"")
        if isinstance(label, Refusal):
            return label
        record = member(members, "json")
        extra = {} if record is None else read_json(record)
        return extra if isinstance(extra, Refusal) else ImageSample(key, members[image], label=label, extra=extra)
