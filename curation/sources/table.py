"""The sources there are. A new one is one file beside this and one line here."""

from types import MappingProxyType
from typing import Final

from curation.sources.base import Source
from curation.sources.folder import FolderSource
from curation.sources.imagenet import ImageNetSource
from curation.sources.journeydb import JourneyDBSource
from curation.sources.sam import SamSource
from curation.sources.webdataset import WebdatasetSource
from schemas.errors import UserError

_ALL: Final[tuple[Source, ...]] = (
    SamSource(),
    SamSource(masks=True),
    ImageNetSource(),
    JourneyDBSource(),
    WebdatasetSource(),
    FolderSource(),
)

SOURCES: Final = MappingProxyType({source.name: source for source in _ALL})


def source_named(name: str) -> Source:
    """The source called `name`. Raises `UserError` naming all of them if there is none."""
    try:
        return SOURCES[name]
    except KeyError:
        raise UserError(f"no source is called {name!r}; choose from {', '.join(SOURCES)}.") from None
