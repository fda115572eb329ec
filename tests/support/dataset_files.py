"""What a dataset directory holds, for comparing two of them to the byte."""

import json
from pathlib import Path


def data_of(root: Path) -> dict[str, bytes]:
    """Every file of a dataset except the runs' summaries; of ledger entries, all but how the run went."""
    data = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        if name.startswith("runs/"):
            continue
        data[name] = path.read_bytes()
        if name.startswith("ledger/"):
            data[name] = json.dumps({k: v for k, v in json.loads(data[name]).items() if k != "run"}).encode()
    return data
