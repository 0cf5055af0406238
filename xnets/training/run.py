"""A run: one training, identified by everything that changes its result. Needs no torch."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from xnets.errors import XNetsError
from xnets.models.spec import ModelSpec
from xnets.seeds import checked_seed
from xnets.training.protocol import Protocol

# Raised whenever a change of the code changes what a run computes: runs of another engine are trained again.
# tests/xnets/test_engine.py notices such a change.
ENGINE = 1


@dataclass(frozen=True)
class Run:
    """A network, a data set (its name and its manifest's digest), a protocol and two seeds.

    graph_seed: the expander graphs. train_seed: initial weights, order, augmentation and dropout, each a stream of its
    own. Where it runs (device, workers, cluster) is not part of it.
    """

    model: ModelSpec
    dataset: str
    data_digest: str
    protocol: Protocol
    graph_seed: int
    train_seed: int

    def __post_init__(self) -> None:
        checked_seed(self.graph_seed, "graph_seed")
        checked_seed(self.train_seed, "train_seed")

    def to_dict(self) -> dict[str, Any]:
        """All that makes the fingerprint, as JSON types."""
        return {"engine": ENGINE, **asdict(self)}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> "Run":
        """The inverse of to_dict. Raises XNetsError for a run of another engine."""
        if said.get("engine") != ENGINE:
            raise XNetsError(f"This run belongs to engine {said.get('engine')}, and this is engine {ENGINE}.")
        rest = {key: value for key, value in said.items() if key != "engine"}
        return cls(**{**rest, "model": ModelSpec(**said["model"]), "protocol": Protocol(**said["protocol"])})

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of to_dict(), in hex."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def label(self) -> str:
        """For people, and for file names: model, data set, seeds, and the first digits of the fingerprint."""
        seeds = f"g{self.graph_seed}-t{self.train_seed}"
        return f"{self.model.name}--{self.dataset}--{seeds}--{self.fingerprint[:8]}"
