"""The document as one HTML page that needs nothing else.

Everything that comes from data goes through jinja2's escaping: captions, keys and paths are untrusted text. The page
runs no script and is told (by its content security policy) to load nothing.
"""

import base64
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from curation.report import formats
from curation.report.document import Document
from schemas.status import USABLE_STATUSES

_HERE: Final = Path(__file__).parent
_LONGEST_TEXT: Final = 4000


def render_html(document: Document) -> str:
    """The page. The same document gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formats.number,
        "cut": _cut,
        "data_uri": _data_uri,
        "words": lambda code: code.replace("_", " "),
    }
    environment.globals |= {"share": formats.share}
    return environment.get_template("template.html").render(
        document=document,
        css=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        usable=frozenset(status.value for status in USABLE_STATUSES),
    )


def _cut(text: str) -> str:
    """At most 4,000 characters: one broken setting must not swell the page."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
