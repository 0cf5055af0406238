"""Where the project is, for notebooks that are started from anywhere inside it."""

import os
from pathlib import Path

from experiments.settings import Settings, read_settings
from xnets.errors import XNetsError


def enter_project() -> Settings:
    """Go to the nearest folder at or above the working directory that has a params.yaml, and read it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").exists():
            os.chdir(folder)
            return read_settings()
    raise XNetsError(f"There is no params.yaml in {here} or above it: start in the repository.")
