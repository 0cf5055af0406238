"""From params.yaml and the paper's rows to the runs that are wanted. Rows that share a configuration share its runs."""

from dataclasses import dataclass, replace
from typing import Any

from experiments.rows import Row, read_rows
from experiments.scales import read_protocols, read_scales
from experiments.settings import ITEMS, Settings, check_keys
from xnets.data import NUM_CLASSES, open_data
from xnets.errors import XNetsError
from xnets.models import ModelSpec, parse_name
from xnets.training import Protocol, Run

NOT_PREPARED = "not prepared yet"  # stands for the digest of data that are not there


@dataclass(frozen=True)
class Cell:
    """One configuration (network, data set, protocol), trained `seeds` times, and the rows that show it."""

    model: ModelSpec
    dataset: str
    protocol: Protocol
    seeds: int
    rows: tuple[Row, ...]

    @property
    def key(self) -> tuple[ModelSpec, str, Protocol]:
        """What makes it a configuration of its own."""
        return self.model, self.dataset, self.protocol

    def runs(self, data_digest: str) -> list[Run]:
        """Its runs, on data with this digest: run i has graph_seed i and train_seed i."""
        return [Run(self.model, self.dataset, data_digest, self.protocol, i, i) for i in range(self.seeds)]


@dataclass(frozen=True)
class Plan:
    """All cells of a scale."""

    settings: Settings
    about: str
    cells: tuple[Cell, ...]

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that are needed."""
        return sorted({cell.dataset for cell in self.cells})

    def _digests(self, missing_ok: bool) -> dict[str, str]:
        folders = {name: self.settings.data_folder / name for name in self.datasets}
        return {
            name: NOT_PREPARED if missing_ok and not (folder / "manifest.json").exists() else open_data(folder).digest
            for name, folder in folders.items()
        }

    def runs(self, missing_ok: bool = False) -> list[Run]:
        """All runs. The data must be prepared, their digest is part of a run; unless missing_ok, for looking ahead."""
        digests = self._digests(missing_ok)
        return [run for cell in self.cells for run in cell.runs(digests[cell.dataset])]

    def runs_of_items(self, missing_ok: bool = False) -> dict[str, list[Run]]:
        """The runs that each table and figure shows: all runs of all its cells, shared ones too."""
        digests = self._digests(missing_ok)
        shown: dict[str, list[Run]] = {}
        for cell in self.cells:
            for item in dict.fromkeys(row.item for row in cell.rows):
                shown.setdefault(item, []).extend(cell.runs(digests[cell.dataset]))
        return {item: shown[item] for item in ITEMS if item in shown}

    def cell_of(self, row: Row) -> Cell | None:
        """The cell that a row shows, or None if this scale does not train it."""
        return next((cell for cell in self.cells if row in cell.rows), None)


def make_plan(settings: Settings) -> Plan:
    """The cells of settings.scale with as many seeds as settings.seeds asks for."""
    scale = read_scales()[settings.scale]
    check_keys(f"scales.yaml: {settings.scale}", scale, ("about", "items", "datasets", "networks", "protocols"))
    check_keys(f"scales.yaml: {settings.scale}: items", dict.fromkeys(scale["items"]), ITEMS)
    _check_models_with_seeds(settings)
    cells: dict[tuple, Cell] = {}
    for row in read_rows():
        if not row.model or row.item not in scale["items"]:
            continue
        dataset = scale["datasets"][row.dataset]
        spec = ModelSpec(row.model, _num_classes(dataset, settings), **_network_changes(row.model, scale))
        protocol = _protocol(row.protocol, scale, settings.scale)
        seeds = settings.seed_count(row.item, row.model)
        known = cells.get((spec, dataset, protocol)) or Cell(spec, dataset, protocol, 0, ())
        cells[known.key] = replace(known, seeds=max(known.seeds, seeds), rows=(*known.rows, row))
    return Plan(settings, scale["about"], tuple(cells.values()))


def _network_changes(model: str, scale: dict[str, Any]) -> dict[str, Any]:
    """What a ModelSpec of this network differs in at this scale: by its name, its dense twin's or its family."""
    networks = scale.get("networks") or {}
    for changes in networks.values():
        check_keys("scales.yaml: networks", changes, ModelSpec.__dataclass_fields__)
    name = parse_name(model)
    family = "densenet-imagenet" if name.family == "densenet" and name.growth is None else name.family
    return networks.get(model) or networks.get(name.dense_twin) or networks.get(family) or {}


def _protocol(name: str, scale: dict[str, Any], scale_name: str) -> Protocol:
    changes = (scale.get("protocols") or {}).get(name) or {}
    check_keys(f"scales.yaml: {scale_name}: {name}", changes, Protocol.__dataclass_fields__)
    return Protocol(**{**read_protocols()[name], **changes})


def _num_classes(dataset: str, settings: Settings) -> int:
    if dataset in NUM_CLASSES:
        return NUM_CLASSES[dataset]
    return open_data(settings.data_folder / dataset).num_classes


def _check_models_with_seeds(settings: Settings) -> None:
    for item, asked in settings.seeds.items():
        models = {row.model for row in read_rows() if row.item == item and row.model}
        if isinstance(asked, dict):
            check_keys(f"params.yaml: seeds: {item}", asked, sorted(models))
    if not settings.seeds:
        raise XNetsError("params.yaml: seeds is empty: take it back from git.")
