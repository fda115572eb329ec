"""The treebanks: which are trained on, which only tested on, and where they come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from curation.nouns.recipe.conllu import Sentence, read_conllu
from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Treebank:
    """A treebank. `trained` only where its licence lets the weights be passed on and used commercially."""

    name: str
    repository: str
    licence: str
    trained: bool


EWT: Final = Treebank("EWT", "https://github.com/UniversalDependencies/UD_English-EWT", "CC BY-SA 4.0", True)
ATIS: Final = Treebank("Atis", "https://github.com/UniversalDependencies/UD_English-Atis", "CC BY-SA 4.0", True)
TESTED_ONLY: Final = (
    Treebank("GUM", "https://github.com/UniversalDependencies/UD_English-GUM", "CC BY-NC-SA 4.0", False),
    Treebank("LinES", "https://github.com/UniversalDependencies/UD_English-LinES", "CC BY-NC-SA 4.0", False),
    Treebank("ParTUT", "https://github.com/UniversalDependencies/UD_English-ParTUT", "CC BY-NC-SA 4.0", False),
    Treebank("Tweebank", "https://github.com/Oneplus/Tweebank", "CC BY-NC-SA 4.0", False),
)


def find_split(directory: Path, treebank: Treebank, split: str) -> Path | None:
    """The file of `split` (train or dev) of a treebank: `en_ewt-ud-train.conllu`, `ewt-train.conllu.gz` and the like.

    Raises `UserError` if there are several.
    """
    files = [path for path in directory.rglob("*") if path.name.endswith((".conllu", ".conllu.gz"))]
    starts = (f"{treebank.name}-{split}.", f"en_{treebank.name}-ud-{split}.")
    found = sorted(path for path in files if path.name.lower().startswith(tuple(s.lower() for s in starts)))
    if len(found) > 1:
        raise UserError(f"{directory}: {len(found)} files of {treebank.name} {split}, such as {found[0]}. Leave one.")
    return found[0] if found else None


def read_split(directory: Path, treebank: Treebank, split: str) -> list[Sentence]:
    """The sentences of a split. Raises `UserError` if its file is not under `directory`."""
    path = find_split(directory, treebank, split)
    if path is None:
        raise UserError(f"{directory}: no {split} file of {treebank.name}. Get it from {treebank.repository}.")
    return read_conllu(path)
