"""Runs in img2dataset's own environment, which may be another than ours; so it imports nothing of ours.

    python img2dataset_child.py version          prints img2dataset's version
    python img2dataset_child.py download JSON    calls img2dataset.download(**JSON)

Its standard input is a pipe that nobody writes to. When it ends, whoever started this is gone, however it died, and the
whole process group ends with it: img2dataset's own processes would go on without.
"""

import importlib
import json
import os
import signal
import sys
import threading
from importlib.metadata import version


def _end_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # where our own modules would be found first
    if arguments[0] == "version":
        importlib.import_module("img2dataset")  # installed and importable are two things

        print(version("img2dataset"))
        return
    _end_with_parent()
    importlib.import_module("img2dataset").download(**json.loads(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
