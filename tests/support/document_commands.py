"""The commands that README and docs tell a reader to type, found in their code blocks."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "LOG.md"))

_BLOCK: Final = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
_OURS: Final = re.compile(r"-m (?P<module>(?:pipelines|benchmarks)\.\w+)")
_COMMENT: Final = re.compile(r"^\s*#.*$|(?<=\s)#[^\n'\"]*$", re.MULTILINE)
_SET: Final = re.compile(r"^(?:export )?(?P<name>[A-Z_]+)=(?P<value>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of ours. `hardware`: its block is marked as one that this machine may not be able to run."""

    page: str
    module: str
    arguments: tuple[str, ...]
    hardware: bool

    def __str__(self) -> str:
        return f"{self.page}: {self.module} {shlex.join(self.arguments)[:60]}"


def commands() -> list[Command]:
    """Every command of ours in a `sh` block, in the order of the pages."""
    return [command for page in PAGES for command in _of(page)]


def _of(page: Path) -> list[Command]:
    found = []
    for block in _BLOCK.finditer(page.read_text()):
        kind, *marks = block["info"].split() or [""]
        if kind not in ("sh", "bash"):
            continue
        variables: dict[str, str] = {}
        for words in _lines(block["text"]):
            assignment = _SET.match(words[0]) if len(words) == 1 else None
            if assignment:
                variables[assignment["name"]] = assignment["value"]
                continue
            filled = [_filled(word, variables) for word in words]
            ours = _OURS.search(" ".join(filled[:5]))
            if ours:
                start = filled.index(ours["module"]) + 1
                found.append(Command(page.name, ours["module"], tuple(filled[start:]), "hardware" in marks))
    return found


def _lines(text: str) -> list[list[str]]:
    """The words of each command; a quoted string may go on over several lines."""
    # shlex would take the end of the line for part of a comment.
    lexer = shlex.shlex(_COMMENT.sub("", text).replace("\\\n", " "), posix=True, punctuation_chars=";&|\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    lines: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set(";&|\n"):
            lines.append([])
        else:
            lines[-1].append(word)
    return [line for line in lines if line]


def _filled(word: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        word = word.replace(f"${name}", value)
    return word
