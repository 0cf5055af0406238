"""A project folder with made-up results of every run of the plan. The accuracies mean nothing: they are test data."""

import math
import random
import re
import shutil
from pathlib import Path
from typing import Any

from experiments.plan import Plan, make_plan
from experiments.settings import read_settings
from xnets.files import write_json
from xnets.training import Run

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent


def write_project(folder: Path, scale: str, studies: str = "[]") -> None:
    """params.yaml and results/<scale>/ as the pipeline leaves them before the stages `tables` and `figure`.

    studies: as in params.yaml; without them, all runs of a network are those of its rows.
    cost.csv is a copy of the pipeline's own, kept beside this file: the lines of the full-size networks.
    """
    params = (REPOSITORY / "params.yaml").read_text()
    params = re.sub(r"^studies: \[.*?\]", f"studies: {studies}", params, flags=re.MULTILINE)
    (folder / "params.yaml").write_text(re.sub(r"^scale: \w+", f"scale: {scale}", params, flags=re.MULTILINE))
    plan = make_plan(read_settings(folder / "params.yaml"))
    results = folder / plan.settings.results
    write_json(results / "data.json", {name: {"digest": name.encode().hex()} for name in plan.datasets})
    shutil.copy(HERE / "cost.csv", results / "cost.csv")
    for run in planned_runs(plan):
        trained, seen = made_up(run)
        write_json(results / "runs" / f"{run.label}.json", trained)
        write_json(results / "evaluations" / f"{run.label}.json", seen)


def planned_runs(plan: Plan) -> list[Run]:
    """All runs of the plan, on data with the digests of `write_project`."""
    return [run for cell in plan.cells for run in cell.runs(cell.dataset.encode().hex())]


def made_up(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's result and its evaluation: accuracies that fall with C and rise with depth and width, and noise."""
    rng = random.Random(run.label)
    name = run.model.parsed
    n_test = {"digits": 500, "imagenet": 50_000}.get(run.dataset, 10_000)
    level = 95 - 3 * math.log2(name.compression or 1) - (2 if name.kind == "G" else 0)
    level += math.log2((name.depth or 40) * (name.growth or 24) / 960)
    epochs = [
        {"epoch": e, "lr": 0.1, "train_loss": 1.0, "train_top1": 50.0, "test_loss": 1.0,
         "test_top1": round(n_test * (level + rng.gauss(0, 0.4)) / 100) * 100 / n_test}
        for e in range(4)
    ]  # fmt: skip
    trained = {
        "fingerprint": run.fingerprint,
        "run": run.to_dict(),
        "epochs": epochs,
        "graphs_sha256": "",
        "weights_sha256": "",
    }
    seen = {"fingerprint": run.fingerprint, "loss": 1.0, "top1": epochs[-1]["test_top1"], "top5": 100.0, "n": n_test}
    return trained, seen
