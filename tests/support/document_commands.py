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
_SET: Final = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One command of whatever program, as typed. `hardware`: its block is marked as one that tests do not run."""

    page: str
    words: tuple[str, ...]
    hardware: bool
    exported: tuple[tuple[str, str], ...]  # what its block exported before it

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)[:80]}"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of ours. `launcher` is what stands before the module's name, such as `python -m`."""

    page: str
    module: str
    arguments: tuple[str, ...]
    hardware: bool
    launcher: tuple[str, ...] = ()
    exported: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.page}: {self.module} {shlex.join(self.arguments)[:60]}"


def lines() -> list[Line]:
    """Every line of the `sh` blocks that runs something, in the order of the pages."""
    return [line for page in PAGES for line in _of(page)]


def commands() -> list[Command]:
    """Those of them that run a command of ours."""
    return [command for line in lines() if (command := command_of(line)) is not None]


def command_of(line: Line) -> Command | None:
    """The line as a command of ours, if it is one."""
    ours = _OURS.search(" ".join(line.words[:5]))
    if ours is None:
        return None
    at = line.words.index(ours["module"])
    arguments = line.words[at + 1 :]
    return Command(line.page, ours["module"], arguments, line.hardware, line.words[:at], line.exported)


def other_blocks() -> list[tuple[str, str]]:
    """(page, text) of the code blocks in which no commands are looked for."""
    found = [(page.name, block) for page in PAGES for block in _BLOCK.finditer(page.read_text())]
    return [(page, block["text"]) for page, block in found if block["info"].split()[:1] != ["sh"]]


def _of(page: Path) -> list[Line]:
    found = []
    for block in _BLOCK.finditer(page.read_text()):
        kind, *marks = block["info"].split() or [""]
        if kind != "sh":
            continue
        variables: dict[str, str] = {}
        exported: dict[str, str] = {}
        for words in _lines(block["text"]):
            assignment = _SET.match(words[-1]) if len(words) == 1 or words[0] == "export" else None
            if assignment:
                variables[assignment["name"]] = assignment["value"]
                exported |= {assignment["name"]: assignment["value"]} if words[0] == "export" else {}
                continue
            filled = tuple(_filled(word, variables) for word in words)
            found.append(Line(page.name, filled, "hardware" in marks, tuple(exported.items())))
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
