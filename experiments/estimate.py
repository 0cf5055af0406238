"""How long a run will take: from finished runs of the same configuration, else from its size."""

import csv
from functools import cache
from statistics import mean

from experiments.costs import trained_size
from experiments.plan import Plan
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
    """Seconds of each run of a plan on one worker."""

    def __init__(self, plan: Plan, device: str = "cpu") -> None:
        self.plan, self.device = plan, device
        self.sizes = _sizes(plan)

    def seconds(self, run: Run) -> float:
        """Of the whole run."""
        return self._measured(run) or self._from_size(run)

    @cache  # noqa: B019 - lives as long as one command
    def _measured_by_cell(self) -> dict[tuple, float]:
        store, times = Store(self.plan.settings.store), {}
        for run in self.plan.runs(missing_ok=True):
            try:
                result = store.result(run)
            except XNetsError:
                continue  # the train stage will speak of it
            if result:
                times.setdefault(_cell(run), []).append(result["provenance"]["seconds"])
        return {cell: mean(seconds) for cell, seconds in times.items()}

    def _measured(self, run: Run) -> float | None:
        return self._measured_by_cell().get(_cell(run))

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
    counted: dict[tuple[str, str], tuple[int, float]] = {}
    if path.exists():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["counting"] == "as trained"]
        counted = {(row["model"], row["num_classes"]): (int(row["layers"]), float(row["macs"])) for row in rows}
    sizes = {}
    for cell in plan.cells:
        found = counted.get((cell.model.name, str(cell.model.num_classes)))
        sizes[cell.model, cell.dataset] = found or trained_size(cell.model, SIDES.get(cell.dataset, 32))
    return sizes
