"""What the documents tell a reader to type is what the commands take."""

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from document_commands import PAGES, ROOT, Command, commands

_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_MODULE = re.compile(r"python -m ((?:pipelines|benchmarks)\.\w+)")


class _ParsedError(Exception):
    """Raised in place of running a command whose arguments were understood."""


@pytest.mark.parametrize("command", commands(), ids=str)
def test_every_command_of_the_documents_is_understood(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *arguments: Any) -> None:
        parse(self, *arguments)
        raise _ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [command.module, *command.arguments])
    given = [list(command.arguments)] if command.module.startswith("pipelines.") else []  # benchmarks read sys.argv
    with pytest.raises(_ParsedError):
        importlib.import_module(command.module).main(*given)


def test_there_are_commands_to_check() -> None:
    found = {command.module for command in commands()}
    assert {"pipelines.caption", "pipelines.train", "pipelines.select", "pipelines.ingest"} <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_every_module_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in _LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    modules = [ROOT / (name.replace(".", "/") + ".py") for name in _MODULE.findall(text)]
    packages = [path for path in modules if (path.with_suffix("") / "__main__.py").is_file()]
    assert [path.name for path in modules if not path.is_file() and path not in packages] == []
