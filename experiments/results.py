"""Result files: one JSON a run under results/<scale>/, and the one way to read them back."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.cells import Cell
from experiments.plan import Plan
from xnets.errors import XNetsError
from xnets.files import read_json, write_json
from xnets.models import ModelSpec
from xnets.training import Run


@dataclass(frozen=True)
class RunResult:
    """One run as tables and figures see it; accuracies in %.

    top1 is the final epoch's, the result; best_top1 and best_epoch are what the authors report, chosen on the test set.
    """

    graph_seed: int
    train_seed: int
    top1: float
    best_top1: float
    best_epoch: int
    n_test: int
    fingerprint: str


def write_folder(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Replace `folder` by one JSON file for each entry."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise XNetsError(f"Cannot write {folder} ({error.strerror}): free space or make it writable.") from None
    try:
        for name, content in files.items():
            write_json(part / f"{name}.json", content)
        part.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def graph_file(plan: Plan, model: ModelSpec, graph_seed: int) -> Path:
    """Where the graphs of a network are recorded: a file for each network that differs in anything, and seed."""
    digest = hashlib.sha256(json.dumps(asdict(model), sort_keys=True).encode()).hexdigest()[:8]
    return plan.settings.results / "graphs" / f"{model.name}--{model.graph}--g{graph_seed}--{digest}.json"


def read_results(plan: Plan) -> dict[Cell, list[RunResult]]:
    """All results of the plan, exactly: a missing, a foreign and a surplus file are each refused."""
    runs_folder, seen_folder = plan.settings.results / "runs", plan.settings.results / "evaluations"
    digests = {name: entry["digest"] for name, entry in _read_data_note(plan).items()}
    runs = {cell: cell.runs(digests[cell.dataset]) for cell in plan.cells}
    wanted = {run.label: run for some in runs.values() for run in some}  # cells may share runs
    for folder, stage in ((runs_folder, "train"), (seen_folder, "evaluate")):
        there = {path.stem for path in folder.glob("*.json")}
        missing, surplus = sorted(set(wanted) - there), sorted(there - set(wanted))
        if missing:
            raise XNetsError(f"{folder / missing[0]}.json is missing ({len(missing)} in all): run `dvc repro {stage}`.")
        if surplus:
            raise XNetsError(
                f"{folder / surplus[0]}.json belongs to no run of params.yaml: run `dvc repro -f {stage}`."
            )
    results = {}
    for label, run in wanted.items():
        trained = _of_run(runs_folder / f"{label}.json", run, "train")
        seen = _of_run(seen_folder / f"{label}.json", run, "evaluate")
        results[run] = run_result(run, trained, seen)
    return {cell: [results[run] for run in some] for cell, some in runs.items()}


def run_result(run: Run, trained: dict[str, Any], seen: dict[str, Any]) -> RunResult:
    """From what the run computed and its evaluation."""
    best = max(trained["epochs"], key=lambda record: record["test_top1"])
    return RunResult(
        run.graph_seed, run.train_seed, seen["top1"], best["test_top1"], best["epoch"], seen["n"], run.fingerprint
    )


def _read_data_note(plan: Plan) -> dict[str, Any]:
    path = plan.settings.results / "data.json"
    if not path.exists():
        raise XNetsError(f"{path} is missing: run `dvc repro prepare`.")
    return read_json(path, "and run `dvc repro prepare`")


def _of_run(path: Path, run: Run, stage: str) -> dict[str, Any]:
    said = read_json(path, f"and run `dvc repro {stage}`")
    if said.get("fingerprint") != run.fingerprint:
        raise XNetsError(f"{path} belongs to another run ({said.get('fingerprint')}): run `dvc repro -f {stage}`.")
    return said
