"""See fork_server.py: the captioning command."""

from fault_points import Places
from fork_server import serve

from curation.captions.stage import CaptionWorker
from curation.captions.transformers_engine import TransformersEngine
from curation.execution import plan
from curation.shards.sinks import TableSink
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import caption

_PLACES: Places = {
    "index": (plan, "ensure_index"),
    "process": (CaptionWorker, "process"),
    "text_of": (TransformersEngine, "text_of"),
    "keep": (UnitWriter, "keep"),
    "reject": (UnitWriter, "reject"),
    "finish": (TableSink, "finish"),
    "commit": (UnitWriter, "commit"),
    "publish": (Target, "publish"),
    "write_text": (Target, "write_text"),
}

if __name__ == "__main__":
    serve(caption.main, _PLACES)
