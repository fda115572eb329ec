"""A small captioning job whose server is `transformers serve` with a tiny LLaVA of random weights."""

import contextlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

WANTED = "fastapi, uvicorn, openai"
SERVE = "-m transformers.cli.transformers serve {model} --port {port} --host 127.0.0.1 --device cpu"


@dataclass(frozen=True, slots=True)
class ServedJob:
    """Six units of four rows; `python` runs the server. The folder gets pictures and model."""

    folder: Path
    python: str

    @property
    def trouble(self) -> str:
        """Why `python` cannot run the server; empty if it can."""
        done = subprocess.run([self.python, "-c", f"import {WANTED}"], capture_output=True, text=True, check=False)
        return done.stderr.splitlines()[-1] if done.returncode else ""

    def prepare(self) -> None:
        """Make the pictures and the model."""
        code = "import sys, torch; from pathlib import Path; from curation.demo.models import make_llava; "
        code += "from curation.scenes.shards import write_laion_shards; torch.manual_seed(0); "
        code += "make_llava(Path(sys.argv[1]) / 'llava', image_px=28); "
        code += "write_laion_shards(Path(sys.argv[1]), shards=2, rows=12)"
        subprocess.run([sys.executable, "-c", code, str(self.folder)], check=True, capture_output=True)

    def start(self, out: Path) -> "subprocess.Popen[str]":
        """Run the job in the background."""
        model = ["--model", str(self.folder / "llava"), "--max-new-tokens", "40", "--canary", "0"]
        shards = ["--shards", f"{self.folder}/*.tar", "--source", "webdataset", "--unit-rows", "4"]
        server = ["--engine", "server", "--server-command", f"{self.python} {SERVE}", "--concurrency", "3"]
        line = [sys.executable, "-m", "pipelines.caption", *shards, *model, *server, "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)

    def keys(self) -> list[str]:
        """The keys of its input."""
        names = []
        for shard in self.folder.glob("*.tar"):
            with tarfile.open(shard) as tar:
                names += sorted({name.partition(".")[0] for name in tar.getnames()})
        return names

    def servers(self) -> list[psutil.Process]:
        """Its servers that run now."""
        return [process for process, line in self._processes() if "serve" in line]

    def processes(self) -> list[psutil.Process]:
        """Servers and what started them, the job apart."""
        return [process for process, _ in self._processes()]

    def _processes(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if str(self.folder / "llava") in " ".join(line) and "pipelines.caption" not in line:
                    yield process, line
