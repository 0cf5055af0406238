"""Published runs: published/<scale>/ holds one JSON a run, so that a clone shows what was trained without training it.

A record is a run's result and its evaluation in one: the run itself and its fingerprint, every epoch, the accuracy of
its last one, and where, when and with what it was computed. Trained networks are not published.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cells import Cell
from experiments.plan import Plan
from experiments.results import RunResult, run_result
from experiments.scales import read_scales
from experiments.sound import apart, evaluation_fault, partial, result_fault, sound_evaluation, sound_result
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.files import read_json, write_json
from xnets.training import Run

FOLDER = Path("published")
REMEDY = "and take it back from git, or publish the run again"


@dataclass(frozen=True)
class Record:
    """A published run: what it is, where it is written down, and all that is said of it there."""

    run: Run
    path: Path
    said: dict[str, Any]

    @property
    def result(self) -> RunResult:
        """As tables and figures see it."""
        return run_result(self.run, self.said, self.said["evaluation"])


def publish(store: Store, runs: Iterable[Run], folder: Path, dirty: bool = False) -> tuple[list[Path], int]:
    """Write a record into `folder` for each of `runs` that is finished and evaluated in the store.

    Returns the files that are new, and how many stood there already. dirty: publish also what was trained with
    uncommitted changes, or by code of no known commit.

    Raises XNetsError before anything is written: for damage in the store, a run that contradicts itself, one that only
    `dirty` lets pass, and one that is published with another result: delete that record if it is to be replaced.
    """
    new, known = {}, 0
    digests = {(there := read_record(path).run).dataset: there for path in sorted(folder.glob("*.json"))}
    for run in runs:
        result, seen = sound_result(store, run), sound_evaluation(store, run)
        if result is None or seen is None:
            continue
        path = folder / f"{run.label}.json"
        if path.exists():
            there = read_record(path).said
            if there["weights_sha256"] != result["weights_sha256"]:
                raise XNetsError(f"{path} holds another result of this run: delete it if this one is to replace it.")
            known += 1
            continue
        if fault := apart(result, seen):
            raise XNetsError(f"{store.folder(run) / 'evaluation.json'} {fault}: delete it to evaluate this run again.")
        if fault := partial(seen, run):
            raise XNetsError(
                f"{store.folder(run) / 'evaluation.json'} {fault}: prepare all of it and train this run again."
            )
        if not dirty and (fault := _not_of_a_commit(result["provenance"])):
            raise XNetsError(
                f"{run.label} was trained {fault}, delete {store.folder(run)} and train it again, or publish it "
                "nevertheless with --dirty."
            )
        other = digests.setdefault(run.dataset, run)
        if other.data_digest != run.data_digest:
            raise XNetsError(
                f"{run.label} was trained on another {run.dataset} than {other.label} of {folder}: get the same data, "
                f"or delete the records of the others."
            )
        new[path] = {**result, "evaluation": {key: seen[key] for key in seen if key != "fingerprint"}}
    for path, record in new.items():
        write_json(path, record)
    return list(new), known


def _not_of_a_commit(about: dict[str, Any]) -> str | None:
    """With what code a run was trained that nobody can check out, and what to do first; None if a commit has it.

    A run that went on from a checkpoint was trained by all of its attempts.
    """
    if about.get("dirty"):
        return "with uncommitted changes: commit"
    if any(attempt.get("dirty") is not False for attempt in about.get("attempts", [])):
        return "with uncommitted changes, or by code of no known commit, in one of its attempts: commit"
    known = about.get("commit") is not None and about.get("dirty") is False
    return None if known else "by code of no known commit: clone the repository with git"


def read_record(path: Path) -> Record:
    """One record, checked. Raises XNetsError if it is damaged, another run than its name says, or another engine's."""
    if path.suffix != ".json":
        raise XNetsError(f"{path} is no published run: name a JSON file of published/<scale>/.")
    said = read_json(path, REMEDY)
    try:
        run = Run.from_dict(said["run"])
    except XNetsError as error:  # of another engine, or with a network that is no longer known
        raise XNetsError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise XNetsError(f"{path} is no published run: delete it {REMEDY}.") from None
    seen = said.get("evaluation")
    seen = {**seen, "fingerprint": said.get("fingerprint")} if isinstance(seen, dict) else None
    fault = result_fault(said, run) or evaluation_fault(seen, run) or partial(seen, run)
    if not fault and path.stem != run.label:
        fault = f"is {run.label}"
    if fault:
        raise XNetsError(f"{path} {fault}: delete it {REMEDY}.")
    return Record(run, path, said)


def read_published(scale: str, folder: Path = FOLDER) -> list[Record]:
    """All records of a scale, in the order of their names; [] if nothing of it is published."""
    records = [read_record(path) for path in sorted((folder / scale).glob("*.json"))]
    digests: dict[str, Record] = {}
    for record in records:
        other = digests.setdefault(record.run.dataset, record)
        if other.run.data_digest != record.run.data_digest:
            raise XNetsError(
                f"{record.path} and {other.path.name} were not trained on the same {record.run.dataset}: delete one."
            )
    return records


def published_scales(folder: Path = FOLDER) -> list[str]:
    """Scales of which something is published. Raises XNetsError for records in a folder that is no scale's."""
    found = sorted(path for path in folder.glob("*") if any(path.glob("*.json")))
    for path in found:
        if path.name not in read_scales():
            raise XNetsError(f"{path} is no scale's folder: there are {', '.join(read_scales())}; move it elsewhere.")
    return [path.name for path in found]


def not_asked_for(records: dict[Cell, list[Record]], scale: str, folder: Path = FOLDER) -> list[Record]:
    """Published runs of a scale that no cell shows: params.yaml asks for fewer seeds, or scales.yaml has changed."""
    shown = {record.path for found in records.values() for record in found}
    return [record for record in read_published(scale, folder) if record.path not in shown]


def published_records(plan: Plan, folder: Path = FOLDER) -> dict[Cell, list[Record]]:
    """The published runs of each cell of a plan, in the order of its seeds: all, some or none of those it wants."""
    known = {
        (
            record.run.model,
            record.run.dataset,
            record.run.protocol,
            record.run.graph_seed,
            record.run.train_seed,
        ): record
        for record in read_published(plan.settings.scale, folder)
    }
    return {
        cell: [known[(*cell.key, *seeds)] for seeds in cell.seeds if (*cell.key, *seeds) in known]
        for cell in plan.cells
    }


def results_of(records: dict[Cell, list[Record]]) -> dict[Cell, list[RunResult]]:
    """The same as tables, figures and claims see them."""
    return {cell: [record.result for record in found] for cell, found in records.items()}


def coverage(records: dict[Cell, list[Record]]) -> dict[str, tuple[int, int]]:
    """Of each table, figure and study: runs published, runs wanted."""
    there: dict[str, tuple[int, int]] = {}
    for cell, found in records.items():
        for item in cell.items:
            before = there.get(item, (0, 0))
            there[item] = before[0] + len(found), before[1] + len(cell.seeds)
    return there
