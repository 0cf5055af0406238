"""How long a run will take: from finished runs of its configuration, else from its size and the speed seen so far."""

import csv
from functools import cached_property
from statistics import mean, median

from experiments.costs import spec_columns, trained_size
from experiments.plan import Plan
from experiments.sound import sound_result
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.models import ModelSpec
from xnets.training import Run

# Rough figures for one CPU core and for one data-centre GPU; only the time left hangs on them.
SECONDS_PER_MAC = {"cpu": 3 / 25e9, "cuda": 3 / 5e12}  # forward and backward, of one image
SECONDS_PER_LAYER = {"cpu": 150e-6, "cuda": 120e-6}  # of one step, however small the layer
SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "imagenet": 224}  # of the images, in pixels
TRAIN_IMAGES = {"digits": 1297, "cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}


class Estimate:
    """Seconds of each run of a plan on one worker. device: the kind of it, "cpu" or "cuda"."""

    def __init__(self, plan: Plan, device: str = "cpu") -> None:
        self.plan, self.device = plan, device
        self.sizes = _sizes(plan)

    def seconds(self, run: Run) -> float:
        """Of the whole run."""
        measured = self._measured.get(_cell(run))
        return measured if measured is not None else self._from_size(run) * self._slowness

    @property
    def basis(self) -> str:
        """What the figures rest on, for people."""
        n = len(self._measured)
        return f"measured on {n} configurations, the others from their size" if n else "rough, from sizes alone"

    @cached_property
    def _measured(self) -> dict[tuple, float]:
        """Mean seconds of the finished runs of each configuration, on this kind of device."""
        store, times = Store(self.plan.settings.store), {}
        for run in self.plan.runs(missing_ok=True):
            try:
                result = sound_result(store, run)
            except XNetsError:
                continue  # the train stage will speak of it
            if result and ("cuda" if result["provenance"]["cuda"] else "cpu") == self.device:
                about = result["provenance"]
                times.setdefault(_cell(run), []).append(about["seconds"] * about.get("processes", 1))
        return {cell: mean(seconds) for cell, seconds in times.items()}

    @cached_property
    def _slowness(self) -> float:
        """How much longer finished runs took than their sizes say; 1 before there are any."""
        ratios = [
            self._measured[_cell(run)] / self._from_size(run)
            for run in {_cell(run): run for run in self.plan.runs(missing_ok=True)}.values()
            if _cell(run) in self._measured
        ]
        return median(ratios) if ratios else 1.0

    def _from_size(self, run: Run) -> float:
        layers, macs = self.sizes[run.model, run.dataset]
        images = TRAIN_IMAGES.get(run.dataset, 50_000)
        steps = images / run.protocol.batch_size
        each_epoch = images * macs * SECONDS_PER_MAC[self.device] + steps * layers * SECONDS_PER_LAYER[self.device]
        return run.protocol.epochs * each_epoch


def _cell(run: Run) -> tuple:
    return run.model, run.dataset, run.protocol


def _sizes(plan: Plan) -> dict[tuple[ModelSpec, str], tuple[int, float]]:
    """(layers, MACs of an image) of each network as this scale trains it: from the cost stage, or counted now."""
    path = plan.settings.results / "cost.csv"
    counted: dict[tuple[str | None, ...], tuple[int, float]] = {}
    if path.exists():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["counting"] == "as trained"]
        about = [tuple(map(row.get, spec_columns(plan.cells[0].model, ""))) for row in rows]
        counted = {key: (int(row["layers"]), float(row["macs"])) for key, row in zip(about, rows, strict=True)}
    sizes = {}
    for cell in plan.cells:
        found = counted.get(tuple(spec_columns(cell.model, cell.dataset).values()))
        sizes[cell.model, cell.dataset] = found or trained_size(cell.model, SIDES.get(cell.dataset, 32))
    return sizes
