"""What --help says of each option of each command."""

import argparse
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from document_commands import ROOT

COMMANDS = sorted(
    path.stem for path in (ROOT / "pipelines").glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")
)


class _BuiltError(Exception):
    """Raised in place of parsing, with the parser."""


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a command and of its parts."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from options_of(part)
        elif action.option_strings:
            yield action


@pytest.fixture
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser that a command parses its arguments with."""

    def built(self: argparse.ArgumentParser, *_: Any) -> None:
        raise _BuiltError(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", built)
    with pytest.raises(_BuiltError) as caught:
        importlib.import_module(f"pipelines.{request.param}").main([])
    found = caught.value.args[0]
    assert isinstance(found, argparse.ArgumentParser)
    return found


def test_there_are_commands_to_ask() -> None:
    assert {"caption", "train", "replay", "evaluate", "sample"} <= set(COMMANDS)


@pytest.mark.parametrize("parser", COMMANDS, indirect=True)
def test_help_says_of_every_option_what_it_is_and_what_holds_without_it(parser: argparse.ArgumentParser) -> None:
    for option in options_of(parser):
        name = option.option_strings[0]
        assert option.help, f"{name} has no help"
        valued = option.default not in (None, False, "", argparse.SUPPRESS) and option.default != []
        if valued and option.default != () and option.nargs != 0:
            assert "default" in option.help, f"{name} does not say its default, {option.default}"


@pytest.mark.parametrize("parser", COMMANDS, indirect=True)
def test_help_says_what_the_exit_codes_mean_and_a_mistake_takes_one_line(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "exit codes:" in parser.format_help()
    with pytest.raises(SystemExit) as ended:
        parser.error("no such option")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: no such option. See {parser.prog} --help.\n"
