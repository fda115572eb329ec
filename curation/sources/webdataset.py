"""Any webdataset of pictures, img2dataset's included: a picture, and optionally txt, json and cls beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curation.refusal import Refusal
from curation.sources.base import JSON, ImageSample, image_member, member, with_optional
from curation.sources.metadata import read_caption, read_json, read_label, read_text
from schemas.status import RejectReason


@dataclass(frozen=True, slots=True)
class WebdatasetSource:
    """Pictures of any format in tars. The caption is the txt, else the json's `caption`; `extra` is the whole json;
    `label` is the cls. What is there and cannot be read is refused as bad_metadata, see curation.sources.metadata."""

    name: str = field(default="webdataset", init=False)
    version: int = field(default=1, init=False)
    container: Literal["tar"] = field(default="tar", init=False)

    def members(self, extensions: Sequence[str]) -> tuple[str, ...] | Refusal:
        return with_optional(extensions, "txt", "json", "cls")

    def sample(self, key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
        return captioned_sample(key, members)


def captioned_sample(key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
    """The sample that a picture and the txt, json and cls beside it make; for tars and folders alike."""
    image = image_member(tuple(members))
    if isinstance(image, Refusal):
        return image
    record, digits = member(members, "json"), member(members, "cls")
    extra = {} if record is None else read_json(record)
    if isinstance(extra, Refusal):
        return extra
    caption = _caption(member(members, "txt"), extra)
    if isinstance(caption, Refusal):
        return caption
    label = None if digits is None else read_label(digits)
    if isinstance(label, Refusal):
        return label
    return ImageSample(key, members[image], caption, label, extra)


def _caption(txt: bytes | None, extra: Mapping[str, JSON]) -> str | Refusal | None:
    if txt is not None:
        text = read_text(txt, "txt")
        caption = text if isinstance(text, Refusal) else read_caption(text, "txt")
        if caption is not None:
            return caption
    told = extra.get("caption")
    if told is None:
        return None
    if not isinstance(told, str):
        return Refusal(RejectReason.BAD_METADATA, f"json: caption is a {type(told).__name__}, expected a string")
    return read_caption(told, "json: caption")
