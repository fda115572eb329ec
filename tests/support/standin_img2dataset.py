"""A stand-in for img2dataset: it writes the same files, without a network, and with the defects that the real one has.

`make_standin` makes something that behaves like the interpreter of img2dataset's environment. URLs say what becomes of
them: `http://standin/NAME` is the file NAME of a folder, `http://standin/fail/MESSAGE` fails with that message. Each
request is a line of `asked.txt` in that folder, and `defects.json` says what goes wrong with the files.
"""

import hashlib
import io
import json
import os
import random
import shlex
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_PACKAGE = "from standin_img2dataset import download\n"


def make_standin(folder: Path, pictures: Path, version: str = "1.47.0") -> str:
    """Make the stand-in in `folder`, serving the files of `pictures`; the path of its interpreter."""
    package = folder / "site" / "img2dataset"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_PACKAGE)
    about = folder / "site" / f"img2dataset-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: img2dataset\nVersion: {version}\n")
    path = f"{package.parent}{os.pathsep}{Path(__file__).parent}"
    python = folder / "python"
    variables = f"PYTHONPATH={shlex.quote(path)} STANDIN_PICTURES={shlex.quote(str(pictures))}"
    python.write_text(f'#!/bin/sh\n{variables} exec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    return str(python)


def asked(pictures: Path) -> list[str]:
    """What was asked for so far, in order; forgets it."""
    log = pictures / "asked.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def set_defects(pictures: Path, **defects: Any) -> None:
    """What goes wrong from now on: see `download`."""
    (pictures / "defects.json").write_text(json.dumps(defects))


def download(url_list: str, output_folder: str, save_additional_columns: list[str], **options: Any) -> None:
    """Write one shard as img2dataset 1.47 does: members and rows in order of completion, failures in the Parquet.

    Defects: `exit` (status, at once), `hang` (seconds, after the first half of the rows), `cut` (bytes off the end of
    the tar), `no_parquet` (it is not finished), `wrong_stats`, `swap` (each json goes to another picture),
    `interleave` (all pictures, then all json), `lose` (a key that is in neither file).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = Path(os.environ["STANDIN_PICTURES"])
    defects = json.loads((pictures / "defects.json").read_text()) if (pictures / "defects.json").exists() else {}
    if "exit" in defects:
        print("something went wrong inside")
        sys.exit(defects["exit"])
    assert options["disable_all_reencoding"] is True
    assert options["output_format"] == "webdataset"
    assert options["compute_hash"] == "sha256"
    (column,) = save_additional_columns
    rows = list(enumerate(pq.read_table(url_list).to_pylist()))
    out = Path(output_folder)
    out.mkdir(parents=True)
    random.Random(0).shuffle(rows)
    members: list[tuple[str, bytes]] = []
    told: list[dict[str, Any]] = []
    for position, (number, row) in enumerate(rows):
        if "hang" in defects and position == len(rows) // 2:
            _write_tar(out / "00000.tar", members)
            time.sleep(defects["hang"])
        data, message = _fetch(pictures, row["url"])
        if row[column] == defects.get("lose"):
            continue
        record = {**row, "key": f"{number:09d}", "status": "success" if message is None else "failed_to_download"}
        record["sha256"] = hashlib.sha256(data).hexdigest() if data is not None else None
        told.append({**record, "error_message": message})
        if data is not None:
            members += [(f"{number:09d}.jpg", data), (f"{number:09d}.json", json.dumps(record).encode())]
    if defects.get("swap"):
        contents = [content for name, content in members if name.endswith(".json")]
        contents = [*contents[1:], *contents[:1]]
        members = [(n, c if n.endswith(".jpg") else contents.pop(0)) for n, c in members]
    if defects.get("interleave"):
        members.sort(key=lambda member: member[0].rpartition(".")[2])
    _write_tar(out / "00000.tar", members)
    if "cut" in defects:
        whole = (out / "00000.tar").read_bytes()
        (out / "00000.tar").write_bytes(whole[: -defects["cut"]])
    pq.write_table(pa.Table.from_pylist(told), out / "00000.parquet")
    if defects.get("no_parquet"):
        (out / "00000.parquet").write_bytes(b"PAR1")
    successes = sum(row["status"] == "success" for row in told) + (5 if defects.get("wrong_stats") else 0)
    (out / "00000_stats.json").write_text(json.dumps({"count": len(rows), "successes": successes}))


def _fetch(pictures: Path, url: str) -> tuple[bytes | None, str | None]:
    path = unquote(urlsplit(url).path)
    with (pictures / "asked.txt").open("a") as log:
        log.write(f"{path}\n")
    if path.startswith("/fail/"):
        return None, path.removeprefix("/fail/")
    file = pictures / path.lstrip("/")
    return (file.read_bytes(), None) if file.exists() else (None, "HTTP Error 404: Not Found")


def _write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
