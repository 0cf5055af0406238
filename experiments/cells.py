"""A cell: one configuration and the seeds it is trained with; and what a scale makes of a network and a protocol."""

from dataclasses import dataclass
from typing import Any

from experiments.rows import Row
from experiments.scales import read_protocols
from experiments.settings import Settings, check_keys
from xnets.data import NUM_CLASSES, open_data
from xnets.models import ModelSpec, parse_name
from xnets.training import Protocol, Run

Seeds = tuple[tuple[int, int], ...]  # (graph_seed, train_seed) of each run


@dataclass(frozen=True)
class Cell:
    """One configuration (network, data set, protocol), a run for each pair of seeds, and what shows it.

    rows: of the paper's tables and figures. study: the name of a study instead; a study has cells of its own, since its
    seeds may be crossed and must not be counted as independent runs of a row. Cells may share runs.
    """

    model: ModelSpec
    dataset: str
    protocol: Protocol
    seeds: Seeds
    rows: tuple[Row, ...] = ()
    study: str = ""

    @property
    def key(self) -> tuple[ModelSpec, str, Protocol]:
        """What makes it a configuration of its own."""
        return self.model, self.dataset, self.protocol

    @property
    def items(self) -> list[str]:
        """The tables and figures that show it, or its study."""
        return [self.study] if self.study else list(dict.fromkeys(row.item for row in self.rows))

    @property
    def graph_seeds(self) -> list[int]:
        """Each of its graph seeds once."""
        return sorted({graph_seed for graph_seed, _ in self.seeds})

    def runs(self, data_digest: str) -> list[Run]:
        """Its runs, on data with this digest."""
        return [Run(self.model, self.dataset, data_digest, self.protocol, g, t) for g, t in self.seeds]


def paired(count: int) -> Seeds:
    """Run i has graph_seed i and train_seed i: independent runs."""
    return tuple((i, i) for i in range(count))


def crossed(graphs: int, trains: int) -> Seeds:
    """Every graph_seed with every train_seed."""
    return tuple((g, t) for g in range(graphs) for t in range(trains))


def spec_at(scale: dict[str, Any], model: str, dataset: str, settings: Settings, **said: Any) -> ModelSpec:
    """The network of this name as the scale trains it on its `dataset`; `said` wins over what the scale changes."""
    return ModelSpec(model, _num_classes(dataset, settings), **{**_network_changes(model, scale), **said})


def protocol_at(scale: dict[str, Any], scale_name: str, name: str, **said: Any) -> Protocol:
    """The protocol of this name as the scale changes it; `said` wins over that."""
    changes = (scale.get("protocols") or {}).get(name) or {}
    check_keys(f"scales.yaml: {scale_name}: {name}", changes, Protocol.__dataclass_fields__)
    return Protocol(**{**read_protocols()[name], **changes, **said})


def _network_changes(model: str, scale: dict[str, Any]) -> dict[str, Any]:
    """What a ModelSpec of this network differs in at this scale: by its name, its dense twin's or its family."""
    networks = scale.get("networks") or {}
    for changes in networks.values():
        check_keys("scales.yaml: networks", changes, ModelSpec.__dataclass_fields__)
    name = parse_name(model)
    family = "densenet-imagenet" if name.family == "densenet" and name.growth is None else name.family
    return networks.get(model) or networks.get(name.dense_twin) or networks.get(family) or {}


def _num_classes(dataset: str, settings: Settings) -> int:
    if dataset in NUM_CLASSES:
        return NUM_CLASSES[dataset]
    return open_data(settings.data_folder / dataset).num_classes
