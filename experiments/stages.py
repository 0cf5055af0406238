"""The stages that dvc.yaml calls. Each reads files, writes files, and can be called again at any time."""

import sys
from pathlib import Path
from typing import Any

from experiments.estimate import Estimate
from experiments.executors import find_executor
from experiments.plan import Plan
from experiments.progress import Progress
from experiments.results import graph_file, write_folder
from experiments.sound import sound_evaluation, sound_result
from experiments.store import Store
from xnets.data import PackedData, open_data
from xnets.errors import XNetsError
from xnets.files import read_json, write_json, write_text
from xnets.graphs import combined_hash
from xnets.training import Run


def prepare(plan: Plan) -> None:
    """Pack the data sets the plan needs, and note what they are in data.json."""
    settings, note = plan.settings, {}
    for name in plan.datasets:
        data = ready_data(name, settings.data_folder, settings.sources.get(name))
        note[name] = {"digest": data.digest, **data.manifest}
    write_json(settings.results / "data.json", note)


def ready_data(name: str, data_folder: Path, source: str | None) -> PackedData:
    """The data set as it is prepared, or prepared now if it is missing, damaged or from another source."""
    from xnets.data import prepare as prepare_data

    note = data_folder / f"{name}.source"  # beside the data, not in them: where they came from is not what they are
    try:
        if source is None or (note.exists() and note.read_text() == source):
            data = open_data(data_folder / name)
            data.check_files()
            return data
    except XNetsError:
        pass
    say(f"preparing {name}")
    data = prepare_data(name, data_folder / name, source, say)
    if source is not None:
        write_text(note, source)
    return data


def cost(plan: Plan) -> None:
    """Count every network: cost.csv."""
    from experiments.costs import write_costs

    write_costs(plan)


def sample(plan: Plan) -> None:
    """Sample the graphs of every network and graph seed, and note seeds, hashes and gaps: graphs/."""
    from experiments.graphs import graph_record

    files = {}
    for cell in plan.cells:
        for seed in cell.graph_seeds:
            name = graph_file(plan, cell.model, seed).stem
            if name not in files and (record := graph_record(cell.model, seed))["layers"]:
                files[name] = record
    write_folder(plan.settings.results / "graphs", files)


def train(plan: Plan) -> None:
    """Train what the store lacks, then write runs/: what each run computed, without where and when."""
    results = _do("train", plan, sound_result)
    for run, result in results.items():
        check_result(plan, run, result)
    write_folder(plan.settings.results / "runs", {run.label: _science(result) for run, result in results.items()})


def evaluate(plan: Plan) -> None:
    """Test every trained network, from its checkpoint: evaluations/."""
    results = _do("evaluate", plan, sound_evaluation)
    write_folder(plan.settings.results / "evaluations", {run.label: seen for run, seen in results.items()})


def track(plan: Plan) -> None:
    """Mirror the store into MLflow, and note what was mirrored: tracking.json."""
    from experiments.track import mirror

    write_json(plan.settings.results / "tracking.json", mirror(plan, say))


def _do(task: str, plan: Plan, read: Any) -> dict[Run, dict[str, Any]]:
    """Do `task` on every run that lacks it, and return what `read` finds in the store for all of them."""
    settings, store = plan.settings, Store(plan.settings.store)
    runs = plan.runs()
    lacking = [run for run in runs if read(store, run) is None]
    done = len(runs) - len(lacking)
    if lacking:
        executor, estimate = find_executor(settings.executor), Estimate(plan)
        lacking.sort(key=estimate.seconds, reverse=True)
        progress = Progress(task, lacking, estimate.seconds, done)
        try:
            failed = executor(task, lacking, settings, progress.on_event)
        finally:
            progress.close()
        if failed:
            reasons = "".join(f"\n  {run.label}: {reason}" for run, reason in failed.items())
            raise XNetsError(
                f"{len(failed)} of {len(runs)} runs failed and the others are kept; `dvc repro` tries these again:"
                f"{reasons}"
            )
    say(f"{task}: {len(runs)} runs, {done} were done before")
    return {run: read(store, run) for run in runs}


def _science(result: dict[str, Any]) -> dict[str, Any]:
    """What is the same wherever and whenever a run is trained."""
    return {key: value for key, value in result.items() if key != "provenance"}


def check_result(plan: Plan, run: Run, result: dict[str, Any]) -> None:
    """Raise XNetsError unless the graphs a run used are those that the sample stage recorded."""
    path = graph_file(plan, run.model, run.graph_seed)
    recorded = (
        [layer["hash"] for layer in read_json(path, "and run `dvc repro sample`")["layers"]] if path.exists() else []
    )
    if combined_hash(recorded) != result.get("graphs_sha256"):
        raise XNetsError(f"{run.label} was not trained on the graphs of {path}: run `dvc repro -f sample`.")


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


STAGES = {f.__name__: f for f in (prepare, cost, sample, train, evaluate, track)}
