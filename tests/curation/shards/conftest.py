import os
from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture
def memory_url() -> Iterator[str]:
    """An empty directory of a file system that is not local."""
    fs = fsspec.filesystem("memory")
    url = f"memory://latentmill-test-{os.getpid()}"
    yield url
    if fs.exists(url):
        fs.rm(url, recursive=True)
