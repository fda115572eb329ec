"""See fork_server.py: the ingest command."""

from fault_points import Places
from fork_server import serve

from curation.ingest import due, stage
from curation.ingest.downloader import Downloader
from curation.ingest.stage import IngestWorker
from curation.shards.sinks import TableSink
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from pipelines import ingest

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

if __name__ == "__main__":
    serve(ingest.main, _PLACES)
