"""A process that has imported the ingest command, and forks a child for each job that it is told to run.

See caption_child.py: a line of JSON on stdin names the arguments and the point at which the child kills itself, a line
on stdout answers with its exit status.
"""

import json
import os
import sys

from fault_points import Places, kill_at

from curation.ingest import due, stage
from curation.ingest.downloader import Downloader
from curation.ingest.stage import IngestWorker
from curation.shards.sinks import TableSink
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import ingest
from pipelines.command import run

_PLACES: Places = {
    "plan": (due, "make_plan"),
    "process": (IngestWorker, "process"),
    "download": (Downloader, "download"),
    "read": (stage, "read_downloaded"),
    "keep": (UnitWriter, "keep"),
    "finish": (TableSink, "finish"),
    "publish": (Target, "publish"),
    "write_text": (Target, "write_text"),
    "remove": (Target, "remove"),
}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            with open(order["log"], "ab", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if order["kill"]:
                kill_at(_PLACES, *order["kill"])
            run(ingest.main, order["arguments"])
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
