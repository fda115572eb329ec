"""JourneyDB as `pipelines.ingest --journeydb` lays it out: a picture, and its annotation as json.

The caption is the prompt without what only Midjourney understands. The annotation itself goes into `extra` whole, so
the raw prompt is there, and so is JourneyDB's own caption where it has one (`Task2.Caption`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from curation.refusal import Refusal
from curation.sources.base import JSON, ImageSample, image_member, member, with_optional
from curation.sources.metadata import read_caption, read_json
from schemas.status import RejectReason

_URL: Final = re.compile(r"<?\bhttps?://[^\s>]+>?", re.IGNORECASE)
_ALONE: Final = (
    "beta|creative|draft|fast|hd|public|raw|relax|sameseed|stealth|test|testp|tile|turbo|upanime|upbeta|uplight|vibe"
    "|video"
)
_WITH_NUMBER: Final = (
    "ar|aspect|c|chaos|cw|exp|h|height|iw|niji|ow|q|quality|r|repeat|s|seed|stop|stylize|sv|sw|v|version|w|weird|width"
)
_WITH_WORD: Final = "cref|p|profile|sref|style"
_NUMBER: Final = r"\.?\d[\w.:/]*"
_PARAMETERS: Final = (
    # `--no` takes all words up to the next parameter.
    re.compile(r"--no\b.*?(?=\s*(?:--|—|–)[a-z]|\s*$)", re.IGNORECASE | re.DOTALL),
    # Phones make one dash of two hyphens; before a word alone it may be a dash.
    re.compile(rf"(?:--|—|–)(?:{_WITH_NUMBER})\s*[=:]?\s*{_NUMBER}", re.IGNORECASE),
    re.compile(rf"--(?:{_WITH_WORD})\b(?:\s*[=:]?\s*\w[\w:]*)?", re.IGNORECASE),
    re.compile(rf"--(?:{_ALONE}|{_WITH_NUMBER})\b", re.IGNORECASE),
    re.compile(rf"(?<!\S)--[a-z]\w*(?:\s+{_NUMBER})?", re.IGNORECASE),  # ones that we have never heard of
)
_WEIGHT: Final = re.compile(r"::\s?(?:-?\d*\.?\d+)?")
_LOOSE_COMMAS: Final = re.compile(r"\s*,(?:\s*,)*")


@dataclass(frozen=True, slots=True)
class JourneyDBSource:
    """`KEY.jpg` and `KEY.json`, a line of JourneyDB's jsonl. A picture without annotation, or whose prompt is nothing
    but parameters, has no caption."""

    name: str = field(default="journeydb", init=False)
    version: int = field(default=1, init=False)
    container: Literal["tar"] = field(default="tar", init=False)

    def members(self, extensions: Sequence[str]) -> tuple[str, ...] | Refusal:
        return with_optional(extensions, "json")

    def sample(self, key: str, members: Mapping[str, bytes]) -> ImageSample | Refusal:
        image = image_member(tuple(members))
        if isinstance(image, Refusal):
            return image
        record = member(members, "json")
        extra = {} if record is None else read_json(record)
        if isinstance(extra, Refusal):
            return extra
        caption = prompt_caption(extra)
        return caption if isinstance(caption, Refusal) else ImageSample(key, members[image], caption, extra=extra)


def prompt_caption(annotation: Mapping[str, JSON]) -> str | Refusal | None:
    """The caption that the prompt of `annotation` makes."""
    prompt = annotation.get("prompt")
    if prompt is None:
        return None
    if not isinstance(prompt, str):
        return Refusal(RejectReason.BAD_METADATA, f"json: prompt is a {type(prompt).__name__}, expected a string")
    return read_caption(plain_prompt(prompt), "json: prompt")


def plain_prompt(prompt: str) -> str:
    """`prompt` without the URLs of image prompts, without parameters (`--ar 16:9`, `--v 4`, `--no text`) and weights
    (`::2`); white space and the commas that were between them are tidied."""
    text = _URL.sub(" ", prompt)
    for pattern in _PARAMETERS:
        text = pattern.sub(" ", text)
    text = _WEIGHT.sub(", ", text)
    return " ".join(_LOOSE_COMMAS.sub(",", text).split()).strip(" ,")
