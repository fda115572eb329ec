"""The report as one HTML page that needs nothing else, and as JSON with the same numbers.

Everything that comes from data goes through jinja2's escaping: captions, keys and paths are untrusted text. The page
runs no script and is told (by its content security policy) to load nothing.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from curation.report import figures, formats, tables
from curation.report.collect import DatasetFacts, Report
from curation.report.features import RELEASED_LATENT_BYTES, RELEASED_TEXT_BYTES
from curation.report.histogram import Distribution
from curation.report.nouns import NounNumbers
from curation.report.pictures import Thumbnail
from schemas.status import USABLE_STATUSES

JSON_VERSION: Final = 1

_HERE: Final = Path(__file__).parent
_LONGEST_TEXT: Final = 4000
_HEADLINE_SETTINGS: Final = (
    *("model", "prompt", "vae", "t5", "tagger.name", "tagger.version", "column", "columns"),
    *("dtype", "resolution", "buckets", "max_tokens"),
)


def render_html(report: Report) -> str:
    """The page. The same numbers give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formats.number,
        "size": formats.size,
        "cut": _cut,
        "data_uri": _data_uri,
        "words": lambda code: code.replace("_", " "),
    }
    environment.globals |= {"share": formats.share, "tables": tables, "figures": figures}
    return environment.get_template("template.html").render(
        report=report,
        css=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        title=_title(report),
        tiles=_tiles(report),
        headlines=[(facts, _headline(facts)) for facts in report.datasets],
        lead=_lead(report),
        usable=frozenset(status.value for status in USABLE_STATUSES),
        version=version("latentmill"),
    )


def render_json(report: Report) -> str:
    """The numbers of the page, pictures aside, with sorted keys."""
    record = {
        "format": "latentmill.report",
        "version": JSON_VERSION,
        **{field.name: _plain(getattr(report, field.name)) for field in dataclasses.fields(report)},
        "released_bytes": {"latents": RELEASED_LATENT_BYTES, "text": RELEASED_TEXT_BYTES},
    }
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Records as plain values, with their computed properties; thumbnails without their bytes."""
    if isinstance(value, Distribution | NounNumbers):
        return value.as_json()
    if isinstance(value, Thumbnail):
        return {"height": value.original_height, "width": value.original_width, "bytes": len(value.jpeg)}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, found in vars(type(value)).items() if isinstance(found, property)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _title(report: Report) -> str:
    """What the data is, in a few words."""
    images = [facts for facts in report.datasets if facts.kind in ("captions", "latents")]
    if images:
        return " and ".join(sorted({facts.source for facts in images}))
    return report.datasets[0].source if report.datasets else "training run"


def _lead(report: Report) -> str:
    """How much there is, and of when."""
    images = next((facts for facts in report.datasets if facts.kind in ("captions", "latents")), None)
    newest = max((facts.newest_run for facts in report.datasets), default="")
    shards = f"{images.shards:,} shard{'' if images.shards == 1 else 's'}" if images else ""
    parts = [f"{images.rows_in:,} samples of {shards}"] if images else []
    parts += [f"newest run {newest}"] if newest else []
    return ", ".join(parts)


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """The figures that everybody looks for: name, value, and what it is a share of."""
    first, tiles = report.samples, []
    if first is not None:
        tiles.append(("samples in", f"{first:,}", ""))
    for step, name in (("captions", "readable"), ("usable", "usable captions"), ("joined", "ready for training")):
        balance = report.balance(step)
        if balance is not None and first is not None:
            tiles.append((name, f"{balance.kept:,}", f"{formats.share(balance.kept, first)} of samples"))
    if report.text and report.latents:
        total = report.text.volume.per_sample + report.latents.volume.per_sample
        tiles.append(("features a sample", formats.size(total), "latents and text"))
    final = report.training.final if report.training else {}
    loss = final.get("last_loss", final.get("loss"))
    if isinstance(loss, float | int):
        tiles.append(("last training loss", f"{loss:.4g}", ""))
    return tiles


def _headline(facts: DatasetFacts) -> list[tuple[str, str]]:
    """The settings that say most about a dataset."""
    return [(name, facts.config[name]) for name in _HEADLINE_SETTINGS if name in facts.config]


def _cut(text: str) -> str:
    """At most 4,000 characters: one broken caption must not swell the page."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
