"""What every network of a plan costs, counted once for all tables and figures: results/<scale>/cost.csv."""

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING

from experiments.plan import Plan
from experiments.rows import read_rows
from xnets.data import NUM_CLASSES, open_data
from xnets.errors import XNetsError
from xnets.files import write_text
from xnets.models import ModelSpec

if TYPE_CHECKING:
    from xnets.cost import Cost

FIELDS = ["model", "num_classes", "counting", "parameters", "weights", "norms", "biases", "macs", "activation_bytes"]
SPEC = ["dataset", "rule", "graph", "init", "narrow", "drop_strides"]  # of a network as a scale trains it


def write_costs(plan: Plan) -> None:
    """One line for each network of the paper and counting rule.

    "paper", "authors" and "dense/C" are the full network's on the paper's own data, whatever the scale trains; "as
    trained" is each network this scale trains, on its images, with the number of its layers and the rest of its spec.
    """
    from xnets.cost import COUNTING_RULES, cost

    rows = []
    full = sorted({(row.model, NUM_CLASSES[row.dataset]) for row in read_rows() if row.model})
    for model, num_classes in full:
        for counting in COUNTING_RULES:
            try:
                counted = cost(model, counting, num_classes)
            except XNetsError:
                continue  # X-VGG16-1 as the authors had it, dense/C of networks without a C: there is no such number
            rows.append({"model": model, "num_classes": num_classes, "counting": counting, **asdict(counted)})
    sides = {name: _side(plan, name) for name in plan.datasets}
    for model, dataset in dict.fromkeys((cell.model, cell.dataset) for cell in plan.cells):
        layers, counted = _count_trained(model, sides[dataset])
        about = {**spec_columns(model, dataset), "counting": "as trained"}
        rows.append({**about, **asdict(counted), "layers": layers})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIELDS, "layers", *SPEC], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(plan.settings.results / "cost.csv", text.getvalue())


def spec_columns(model: ModelSpec, dataset: str) -> dict[str, str]:
    """What tells the "as trained" lines of cost.csv apart."""
    said = {**asdict(model), "model": model.name, "dataset": dataset}
    return {name: str(said[name]) for name in ("model", "num_classes", *SPEC)}


def trained_size(model: ModelSpec, side: int) -> tuple[int, float]:
    """Layers, and multiply-adds of one side x side image, of a network as a scale trains it."""
    layers, counted = _count_trained(model, side)
    return layers, counted.macs


def _count_trained(model: ModelSpec, side: int) -> tuple[int, "Cost"]:
    from torch import nn

    from xnets.cost import count
    from xnets.models import build_spec

    network = build_spec(model, 0, device="meta")
    layers = sum(not list(m.children()) and not isinstance(m, (nn.Identity, nn.Flatten)) for m in network.modules())
    return layers, count(network, side)


def _side(plan: Plan, dataset: str) -> int:
    shape = open_data(plan.settings.data_folder / dataset).manifest["splits"]["train"]["shape"]
    return shape[0] if shape else 224
