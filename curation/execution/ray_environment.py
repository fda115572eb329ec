"""What must stand in the environment before Ray is imported: it reads these once."""

import os
import secrets
import sys


def prepare_ray_environment(address: str | None) -> None:
    """No usage statistics; and for a local Ray of our own, a token of its own.

    Without this, whether a local Ray asks for a token depends on what an earlier run left in the home directory. With
    an `address` the cluster's own settings apply, as its administrator gave them. Where something else has imported Ray
    already it is too late: its servers would ask for a token that this process does not send.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
