"""What every network of a plan costs, counted once for all tables and figures: results/<scale>/cost.csv."""

import csv
import io
from dataclasses import asdict

from experiments.plan import Plan
from experiments.rows import read_rows
from xnets.data import open_data
from xnets.errors import XNetsError
from xnets.files import write_atomically

FIELDS = ["model", "num_classes", "counting", "parameters", "weights", "norms", "biases", "macs", "activation_bytes"]


def write_costs(plan: Plan) -> None:
    """One line for each network of the paper and counting rule.

    "paper", "authors" and "dense/C" are the full network's on the paper's own data, whatever the scale trains; "as
    trained" is the network this scale trains, on its images, with the number of its layers.
    """
    from torch import nn

    from xnets.cost import COUNTING_RULES, cost, count
    from xnets.models import build_spec

    classes = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
    rows = []
    full = sorted({(row.model, classes[row.dataset]) for row in read_rows() if row.model})
    for model, num_classes in full:
        for counting in COUNTING_RULES:
            try:
                counted = cost(model, counting, num_classes)
            except XNetsError:
                continue  # X-VGG16-1 as the authors had it, dense/C of networks without a C: there is no such number
            rows.append({"model": model, "num_classes": num_classes, "counting": counting, **asdict(counted)})
    sides = {name: _side(plan, name) for name in plan.datasets}
    for cell in plan.cells:
        network = build_spec(cell.model, 0, device="meta")
        layers = sum(not list(m.children()) and not isinstance(m, (nn.Identity, nn.Flatten)) for m in network.modules())
        counted = asdict(count(network, sides[cell.dataset]))
        about = {"model": cell.model.name, "num_classes": cell.model.num_classes, "counting": "as trained"}
        rows.append({**about, **counted, "layers": layers})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIELDS, "layers"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(plan.settings.results / "cost.csv", lambda file: file.write(text.getvalue().encode()))


def _side(plan: Plan, dataset: str) -> int:
    shape = open_data(plan.settings.data_folder / dataset).manifest["splits"]["train"]["shape"]
    return shape[0] if shape else 224
