"""The numbers of the report as JSON, whole and with a version, for programs. Pictures are told by their size alone."""

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from curation.report.collect import Report
from curation.report.features import RELEASED_LATENT_BYTES, RELEASED_TEXT_BYTES
from curation.report.histogram import Distribution
from curation.report.nouns import NounNumbers
from curation.report.pictures import Thumbnail

RECORD_VERSION: Final = 2
"""Raised whenever a key goes, is renamed, or changes what it means."""


def render_json(report: Report) -> str:
    """The record, with sorted keys: the same numbers give the same bytes."""
    record = {
        "format": "latentmill.report",
        "version": RECORD_VERSION,
        "corpora": [_plain(corpus) | {"pictures": _pictures(corpus.pictures)} for corpus in report.corpora],
        "released_bytes": {"latents": RELEASED_LATENT_BYTES, "text": RELEASED_TEXT_BYTES},
    }
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _pictures(pictures: Any) -> Any:
    """Each thumbnail by its sample: its sizes, or why there is none."""
    if pictures is None:
        return None
    told = []
    for wanted, found in pictures.items():
        one = {"shard": wanted.shard, "key": wanted.key, "side_px": wanted.side_px, "cropped": wanted.crop is not None}
        told.append(one | ({"problem": found} if isinstance(found, str) else _thumbnail(found)))
    return told


def _thumbnail(found: Thumbnail) -> dict[str, int]:
    return {
        "original_height": found.original_height,
        "original_width": found.original_width,
        "height_px": found.height_px,
        "width_px": found.width_px,
        "bytes": len(found.jpeg),
    }


def _plain(value: Any) -> Any:
    """Records as plain values, with their computed properties."""
    if isinstance(value, Distribution | NounNumbers):
        return _plain(value.as_json())
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.name != "pictures"]
        names += [name for name, found in vars(type(value)).items() if isinstance(found, property)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.value if isinstance(value, Enum) else value
