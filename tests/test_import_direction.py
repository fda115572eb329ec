"""The house stands as designed: pipelines on curation and training, those on schemas, and nothing points back up."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "schemas": {"schemas"},
    "curation": {"schemas", "curation"},
    "training": {"schemas", "training"},
    "pipelines": {"schemas", "curation", "training", "pipelines"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}
FILES = [path for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]
LONGEST_FILE = 400


def imported(path: Path) -> Iterator[str]:
    """The top-level package of each import in the file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield path.relative_to(ROOT).parts[0] if node.level else str(node.module).partition(".")[0]


def test_every_room_is_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_only_point_down(room: str) -> None:
    files = [path for path in FILES if path.relative_to(ROOT).parts[0] == room]
    wrong = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in files
        if (found := OURS & set(imported(path)) - MAY_IMPORT[room])
    }
    assert not wrong, f"{room} may import {sorted(MAY_IMPORT[room])} alone"


def test_no_file_is_longer_than_one_idea() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > LONGEST_FILE}
