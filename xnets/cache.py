"""Where a machine keeps what it can compute again. Needs no torch."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """$XNETS_CACHE, or xnets/ in $XDG_CACHE_HOME or ~/.cache; it may be deleted at any time."""
    if os.environ.get("XNETS_CACHE"):
        return Path(os.environ["XNETS_CACHE"]).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "xnets"
    try:
        return Path.home() / ".cache" / "xnets"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "xnets"
