"""Which runs may be published: asked before `published.publish` writes anything."""

from collections.abc import Iterable
from pathlib import Path

from experiments.sound import apart, partial, sound_evaluation, sound_result
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.training import Run


def check_publishable(store: Store, runs: Iterable[Run], folder: Path, dirty: bool) -> None:
    """Raise XNetsError if one that `folder` lacks contradicts itself, saw a part of the test set, or was trained with
    uncommitted changes.

    dirty: let those changes pass.
    """
    for run in runs:
        result, seen = sound_result(store, run), sound_evaluation(store, run)
        if result is None or seen is None or (folder / f"{run.label}.json").exists():
            continue
        if fault := apart(result, seen):
            raise XNetsError(f"{store.folder(run) / 'evaluation.json'} {fault}: delete it to evaluate this run again.")
        if fault := partial(seen, run):
            raise XNetsError(
                f"{store.folder(run) / 'evaluation.json'} {fault}: prepare all of it and train this run again."
            )
        if not dirty and result["provenance"].get("dirty"):
            raise XNetsError(
                f"{run.label} was trained with uncommitted changes: commit, delete {store.folder(run)} and train it "
                "again, or publish it nevertheless with --dirty."
            )
