"""The scales and protocols that there are: scales.yaml and protocols.yaml beside this file."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@cache
def read_scales() -> dict[str, dict[str, Any]]:
    """experiments/scales.yaml."""
    return yaml.safe_load((HERE / "scales.yaml").read_text())


@cache
def read_protocols() -> dict[str, dict[str, Any]]:
    """experiments/protocols.yaml."""
    return yaml.safe_load((HERE / "protocols.yaml").read_text())
