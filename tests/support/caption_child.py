"""A process that has imported the captioning command, and forks a child for each job that it is told to run.

Importing costs seconds and a campaign runs many jobs. A line of JSON on stdin names the arguments and the
point at which the child kills itself; a line of JSON on stdout answers with its exit status.
"""

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

from fault_points import Places, kill_at

from curation.captions.stage import CaptionWorker
from curation.captions.transformers_engine import TransformersEngine
from curation.execution import plan
from curation.shards.sinks import TableSink
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import caption
from pipelines.command import run

_PLACES: Places = {
    "index": (plan, "ensure_index"),
    "process": (CaptionWorker, "process"),
    "complete": (TransformersEngine, "complete"),
    "keep": (UnitWriter, "keep"),
    "reject": (UnitWriter, "reject"),
    "finish": (TableSink, "finish"),
    "commit": (UnitWriter, "commit"),
    "publish": (Target, "publish"),
    "write_text": (Target, "write_text"),
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
            run(caption.main, order["arguments"])
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
