"""Where a machine keeps what it can compute again. Needs no torch."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """$XNETS_CACHE, or xnets/ in $XDG_CACHE_HOME or ~/.cache; it may be deleted at any time."""
    try:
        if named := os.environ.get("XNETS_CACHE"):
            return Path(named).expanduser()
        if caches := os.environ.get("XDG_CACHE_HOME"):
            return Path(caches) / "xnets"
        return Path.home() / ".cache" / "xnets"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "xnets"
