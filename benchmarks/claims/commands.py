"""The project's own commands, run in this process, one after the other, with what they print kept in a file."""

import contextlib
from importlib import import_module
from pathlib import Path


def command(line: list[str], log: Path) -> None:
    """Run `pipelines.NAME`, the first word of `line`, with the others. Ends this program where the command fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print(f"\n$ python -m pipelines.{' '.join(line)}", flush=True)
        code = import_module(f"pipelines.{line[0]}").main(line[1:])
    if code:
        print(f"pipelines.{line[0]} ended with {code}; {log} says why. The same command goes on from here.")
        raise SystemExit(code)
