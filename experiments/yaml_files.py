"""YAML that people write: what is wrong with it, in words."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from xnets.errors import XNetsError


def read_yaml(path: Path, advice: str = "") -> Any:
    """What the file says. Raises XNetsError with `advice` if it is not YAML; OSError and UnicodeDecodeError pass."""
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise XNetsError(f"{path} is not valid YAML{where}{advice}.") from None


def unknown_key(key: Any, known: Iterable[str], otherwise: str) -> str:
    """Says so, with the known key nearest to it, or what to say `otherwise`."""
    near = difflib.get_close_matches(str(key), list(known), n=1)
    return f"unknown key {key!r}. {f'Did you mean {near[0]!r}?' if near else otherwise}"
