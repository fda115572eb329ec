"""Read the small members beside a picture: captions, labels, JSON. What cannot be read as it stands is refused.

A wrong guess here would be trained on, so nothing is guessed: no other encoding is tried, nothing is cut short.
"""

import json
import re
from typing import Final

from curation.refusal import Refusal
from curation.sources.base import JSON
from schemas.status import RejectReason

LONGEST_CAPTION_BYTES: Final = 60_000
"""Of UTF-8. Longer ones are scraped pages or damage; no prompt has room for them, and T5 reads about 500 bytes."""

_CLASS_INDEX: Final = re.compile(rb"\s*[0-9]{1,9}\s*")


def _bad(detail: str) -> Refusal:
    return Refusal(RejectReason.BAD_METADATA, detail)


def read_text(data: bytes, what: str) -> str | Refusal:
    """UTF-8 with or without a byte order mark. Anything else is refused: Latin-1 would fit every file, and be wrong
    for most."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _bad(f"{what} is not UTF-8 (byte {error.start}); convert it")


def read_caption(text: str, what: str) -> str | Refusal | None:
    """`text` without surrounding white space; None where nothing is left.

    Refused above `LONGEST_CAPTION_BYTES`, and with half surrogates, which no table can store.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return _bad(f"{what} holds half a surrogate pair, which is no character")
    if size > LONGEST_CAPTION_BYTES:
        return _bad(f"{what} has {size} bytes, above {LONGEST_CAPTION_BYTES}; a caption is not that long")
    return text.strip() or None


def read_label(data: bytes) -> int | Refusal:
    """A class index in ASCII digits, white space around it allowed."""
    if not _CLASS_INDEX.fullmatch(data):
        return _bad(f"cls is {data[:20]!r}, expected a class index in digits")
    return int(data)


def read_json(data: bytes) -> dict[str, JSON] | Refusal:
    """A JSON object. NaN and the infinities, which pandas writes and JSON does not know, become None."""
    text = read_text(data, "json")
    if isinstance(text, Refusal):
        return text
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        return _bad(f"json cannot be parsed: {error}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; a thousand brackets
        return _bad(f"json cannot be parsed: {error}")
    if not isinstance(value, dict):
        return _bad(f"json holds a {type(value).__name__}, expected an object")
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return _bad("json holds half a surrogate pair, which is no character")
    return value
