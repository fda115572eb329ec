"""Decodes each file named on standard input and prints one JSON line a file. Run by a test, in a process of its own.

Some of the files are made to crash a decoder, to hang it, or to fill the memory; so each has ten seconds, all have
4 GiB of address space, and the parent learns from the first missing line which file it was.
"""

import json
import resource
import signal
import sys

from curation.images.decode import Decoded, DecodePolicy, decode

SECONDS_A_FILE = 10
ADDRESS_SPACE = 4 * 2**30
POLICY = DecodePolicy(min_side=1, max_aspect=1e9, max_pixels=100_000_000)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for line in sys.stdin:
        path = line.rstrip("\n")
        with open(path, "rb") as file:
            data = file.read()
        signal.alarm(SECONDS_A_FILE)
        result = decode(data, POLICY)
        signal.alarm(0)
        if isinstance(result, Decoded):
            row = {
                "path": path,
                "mode": result.image.mode,
                "size": result.image.size,
                "original": [result.original_height, result.original_width],
                "format": result.format,
                "notes": result.notes,
            }
        else:
            row = {"path": path, "reason": result.reason, "detail": result.detail}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
