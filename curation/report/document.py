"""What the report says, apart from how it looks: sections of blocks, which page and dataset card both render."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from markupsafe import Markup

from curation.report.balance import Loss
from curation.report.chosen import ChosenSample
from curation.report.pictures import Thumbnail


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `quiet` ones are printed with less weight, `other` ones are not ours."""

    name: str
    cells: tuple[str, ...]
    quiet: bool = False
    other: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`header` names the first cell and then the others. `words` says that cells are words and not numbers."""

    kind: ClassVar[str] = "table"
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    words: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a chart's legend; `faint` for a dashed line."""

    tone: str
    name: str
    text: str = ""
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its heading, what it is over (N), its legend, one line below it, and its numbers as a table where no
    other table beside it has them."""

    kind: ClassVar[str] = "figure"
    heading: str
    over: str
    chart: Markup
    keys: tuple[Key, ...] = ()
    note: str = ""
    numbers: Table | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Charts beside one another, where there is room."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `absent` ones say what is not in the report."""

    kind: ClassVar[str] = "text"
    text: str
    style: Literal["plain", "note", "absent", "warning", "path"] = "plain"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, slots=True)
class Sum:
    """Rows in = kept + lost, and the losses with their examples."""

    kind: ClassVar[str] = "sum"
    heading: str
    rows_in: int
    incoming: str
    kept: int
    outgoing: str
    losses: tuple[Loss, ...]

    @property
    def lost(self) -> int:
        """Rows that were not kept."""
        return self.rows_in - self.kept


@dataclass(frozen=True, slots=True)
class Card:
    """A sample with its picture, or why there is none, and its captions. `told` is what it was chosen for."""

    sample: ChosenSample
    picture: Thumbnail | None
    problem: str
    told: str

    @property
    def cleaned(self) -> str:
        """The cleaned caption, where it says something else than the generated one."""
        return "" if self.sample.caption.split() == self.sample.generated.split() else self.sample.caption


@dataclass(frozen=True, slots=True)
class Cards:
    """Samples with their whole captions."""

    kind: ClassVar[str] = "cards"
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A small picture with one value; `name` is shard and key, `text` the caption where it matters."""

    value: str
    name: str
    text: str
    picture: Thumbnail | None
    problem: str


@dataclass(frozen=True, slots=True)
class Strip:
    """Small pictures in a row with a heading; `empty` is said where there are none, `mark` tells whether a filter kept
    them."""

    kind: ClassVar[str] = "strip"
    heading: str
    tiles: tuple[Tile, ...]
    empty: str = ""
    mark: Literal["", "kept", "dropped"] = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks behind a line to open, or to close where they are `opened` already."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: tuple["Block", ...]
    opened: bool = False


@dataclass(frozen=True, slots=True)
class Columns:
    """Blocks beside one another, where there is room; each inner tuple keeps together."""

    kind: ClassVar[str] = "columns"
    columns: tuple[tuple["Block", ...], ...]


Block: TypeAlias = Table | Figures | Text | Heading | Sum | Cards | Strip | Folded | Columns


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report. `look` is one plain sentence on what to look for."""

    anchor: str
    title: str
    look: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure that everybody looks for: its name, value, and what it is a share of."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """The whole report."""

    title: str
    lead: str
    headlines: tuple[Headline, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    made_by: str
    samples: int | None
