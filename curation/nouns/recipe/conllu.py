"""Read CoNLL-U treebanks: sentences with their gold words, spaces and universal part-of-speech tags."""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UserError

_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence: words, whether a space follows each, universal tags, Penn tags, and the name of its document."""

    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    tags: tuple[str, ...]
    penn_tags: tuple[str, ...]
    document: str

    @property
    def text(self) -> str:
        """The sentence as it is written."""
        return "".join(w + " " * s for w, s in zip(self.words, self.spaces, strict=True))


def read_conllu(path: Path) -> list[Sentence]:
    """The sentences of a CoNLL-U file, gzipped or not.

    The words are the syntactic words, so that the multiword token *don't* gives *do* and *n't*; empty nodes are left
    out. Raises `UserError` for a file that is missing or not CoNLL-U.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CoNLL-U ({error}). Check the path.") from None
    return list(parse_conllu(text.split("\n"), str(path)))


def parse_conllu(lines: Iterable[str], where: str) -> Iterator[Sentence]:
    """The sentences in `lines`; `where` names them in errors."""
    document = ""
    rows: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("# newdoc"):
            document = line.partition("=")[2].strip()
        elif line and not line.startswith("#"):
            row = line.split("\t")
            if len(row) != _COLUMNS:
                raise UserError(f"{where}: line {number} has {len(row)} columns, CoNLL-U has {_COLUMNS}.")
            rows.append(row)
        elif not line and rows:
            yield _sentence(rows, document)
            rows = []
    if rows:
        yield _sentence(rows, document)


def _sentence(rows: list[list[str]], document: str) -> Sentence:
    words: list[str] = []
    spaces: list[bool] = []
    tags: list[str] = []
    penn_tags: list[str] = []
    token_end, token_space = 0, True
    for index, form, _, tag, penn_tag, *_, misc in rows:
        space = "SpaceAfter=No" not in misc.split("|")
        if "-" in index:
            token_end, token_space = int(index.partition("-")[2]), space
        elif index.isdecimal():
            position = int(index)
            words.append(form)
            tags.append(tag)
            penn_tags.append(penn_tag)
            spaces.append(space if position > token_end else position == token_end and token_space)
    return Sentence(tuple(words), tuple(spaces), tuple(tags), tuple(penn_tags), document)
