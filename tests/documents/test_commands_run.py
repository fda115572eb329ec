"""What the documents tell a reader to type runs: each page's commands in order, in a folder of its own, made small."""

import importlib
import re
import subprocess
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from document_commands import PAGES, ROOT, Command, command_of, commands, lines, other_blocks
from document_worlds import WORLDS
from small_commands import BRACES, HUB, VALUES, in_place, small_arguments
from torch.distributed.run import get_args_parser

from schemas.dataset import DATASET_FILE
from schemas.location import file_system
from schemas.reading import open_dataset, read_info

NOT_RUN = {
    "an install": re.compile(r"^python -m venv |\bpip install |--make-environment "),
    "servers": re.compile(r" --server-command "),
    "a cluster": re.compile(r"^ray start |--ray-address | --nnodes "),
}
"""Why a command is marked as one that tests do not run: all the reasons there are, and how a command shows them.

What `make` installs is not run either; its targets are looked at, and what `make demo` runs has tests of its own.
"""

_INLINE_MAKE = re.compile(r"`make ([\w-]+)`")
_PROMISED = {
    "demo": "-m pipelines.demo ",
    "demo-full": "-m pipelines.demo --full ",
    "test": "-m pytest ",
    "slow": "-m pytest -m slow",
}

ours = [command for command in commands() if not command.hardware and command.module.startswith("pipelines.")]
by_page = {page: list(group) for page, group in groupby(ours, lambda command: command.page)}


@pytest.fixture(autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and joined data sets kept among what the test leaves behind."""
    torch.set_num_threads(1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=() if page == "README.md" else pytest.mark.slow) for page in by_page]
)
def test_every_command_of_a_page_runs_after_those_before_it(
    page: str, tmp_path: Path, write_features: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    WORLDS[page](tmp_path, write_features)
    monkeypatch.chdir(tmp_path)
    file_system.cache_clear()  # it remembers relative paths as of the last page's folder
    for command in by_page[page]:
        for name, value in command.exported:
            monkeypatch.setenv(name, in_place(value, tmp_path))
        arguments = small_arguments(command, tmp_path)
        assert importlib.import_module(command.module).main(arguments) in (0, None), command
        require_result(command, arguments)


def require_result(command: Command, arguments: list[str]) -> None:
    """What --out names is there; a dataset has rows."""
    if "--out" not in arguments:
        return
    out = Path(arguments[arguments.index("--out") + 1])
    assert out.exists(), command
    if (out / DATASET_FILE).exists():
        info = read_info(str(out))
        assert info is not None
        assert sum(entry.rows_kept for entry in open_dataset(str(out), info.kind).require_whole().entries) > 0, command


def test_every_page_with_commands_has_a_world_and_every_world_a_page() -> None:
    assert list(by_page) == [page.name for page in PAGES if page.name in WORLDS]
    assert set(by_page) == set(WORLDS)


def test_what_is_marked_as_not_run_is_an_install_servers_or_a_cluster_and_all_such_is_marked() -> None:
    marked = {str(line) for line in lines() if line.hardware}
    reasoned = {str(line) for line in lines() if any(shows.search(" ".join(line.words)) for shows in NOT_RUN.values())}
    assert marked == reasoned


def test_what_is_not_marked_is_a_command_of_ours_or_a_target_of_make() -> None:
    foreign = [line for line in lines() if not line.hardware and command_of(line) is None and line.words[0] != "make"]
    assert foreign == []
    assert [page for page, text in other_blocks() if "-m pipelines." in text or "-m benchmarks." in text] == []


def test_nothing_in_the_table_of_what_is_made_small_is_left_over() -> None:
    words = [word for command in ours for word in command.arguments]
    given = {("pipelines", word) for word in words}
    given |= {(command.module, word) for command in ours for word in command.arguments}
    small = {(module, option) for module, values in VALUES.items() for option in values}
    assert small - given == set()
    assert [name for name in HUB if name not in words] == []
    assert [brace for brace in BRACES if not any(brace in word for word in words)] == []


@pytest.mark.parametrize("command", [command for command in commands() if command.launcher[0] != "python"], ids=str)
def test_torchrun_hands_over_the_arguments_as_they_stand(command: Command) -> None:
    assert command.launcher[0] == "torchrun"
    told = get_args_parser().parse_args([*command.launcher[1:], command.module, *command.arguments])
    assert (told.training_script, told.training_script_args) == (command.module, list(command.arguments))


def test_make_knows_every_target_that_is_named() -> None:
    blocks = {line.words[1] for line in lines() if line.words[0] == "make"}
    named = blocks | {target for page in PAGES for target in _INLINE_MAKE.findall(page.read_text())}
    assert {"demo", "test"} <= blocks
    for target in sorted(named):
        told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        assert _PROMISED.get(target, "") in told.stdout
