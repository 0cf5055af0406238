"""Checkpoints: torch files that are written whole or not at all, and refused when they are damaged."""

from pathlib import Path
from typing import Any

import torch

from xnets.errors import XNetsError
from xnets.files import write_atomically


def save_state(path: Path, state: dict[str, Any]) -> None:
    """torch.save, whole or not at all."""
    write_atomically(path, lambda file: torch.save(state, file))


def checkpoint_position(path: Path) -> tuple[int, int]:
    """How far a run had come: epochs, and steps of the next one; (-1, 0) if there is nothing that can be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return len(state["history"]), state["step"]
    except Exception:  # no file, or damaged: zip, pickle, EOF and runtime errors, KeyError
        return -1, 0


def load_state(path: Path, fingerprint: str, device: torch.device) -> dict[str, Any]:
    """Read what save_state wrote for the run `fingerprint`. Raises XNetsError if it is damaged or another run's."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle, EOF and runtime errors, depending on where the damage is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise XNetsError(f"{path} is damaged ({reason[:120]}): delete it to train this run from its start.") from None
    if state.get("fingerprint") != fingerprint:
        raise XNetsError(f"{path} belongs to another run ({state.get('fingerprint')}): delete it.")
    return state
