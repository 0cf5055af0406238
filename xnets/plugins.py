"""What packages above xnets add to it, by the entry points that pyproject.toml declares."""

import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from importlib.metadata import entry_points as installed
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def entry_points(group: str) -> EntryPoints:
    """Those of a group: as installed, or, in a clone on a machine where nothing can be installed, as declared."""
    found = installed(group=group)
    if found or not PYPROJECT.exists():
        return found
    declared = tomllib.loads(PYPROJECT.read_text())["project"].get("entry-points", {}).get(group, {})
    return EntryPoints(EntryPoint(name, value, group) for name, value in declared.items())
