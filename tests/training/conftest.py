from collections.abc import Callable
from typing import Any

import pytest

from training.data.manifest import Manifest, open_manifest


@pytest.fixture
def manifest(write_features: Callable[..., Any]) -> Manifest:
    """Small pictures with text, in two buckets."""
    made = write_features(buckets={(64, 64): 9, (32, 96): 5})
    return open_manifest(str(made.latents), str(made.text))
