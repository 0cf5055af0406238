"""What a slice's files can carry: no run is begun whose checkpoint they would have no room for."""

import math
from functools import cache

from experiments.bundles.format import DONE_FILES, UNDER_WAY_FILES, Packed, done_files
from experiments.bundles.packings import SUFFIX
from experiments.bundles.room import fitting
from experiments.store import Store
from xnets.models import ModelSpec, build_spec
from xnets.training import Run
from xnets.training.loop import CHECKPOINT


def in_order(store: Store, runs: list[Run]) -> list[Run]:
    """As they are trained and packed: what failed comes when all others are done."""
    return sorted(runs, key=lambda run: store.failure(run) is not None)


def without_room(store: Store, runs: list[Run], max_mib: float, max_files: int) -> dict[Run, str]:
    """Those of `runs` in the store that the files have no room for beside the ones before them, and what to do."""
    return fitting(_there(store, runs, []), max_mib, max_files, SUFFIX)[1]


def next_with_room(
    store: Store, waiting: list[Run], under_way: list[Run], runs: list[Run], max_mib: float, max_files: int
) -> tuple[Run | None, str]:
    """The first of `waiting` whose checkpoint fits beside all else of `runs` that is to be carried, if one does.

    That are finished runs, what `under_way` will write, and the checkpoints of others, but of those that have failed.

    Returns the run, and why the first that waits is not it.
    """
    kept, _ = fitting(_there(store, runs, under_way), max_mib, max_files, SUFFIX)
    has_room = {packed.run for packed in kept}
    beside = [packed for packed in kept if packed.finished or store.failure(packed.run) is None]
    reason, too_large = "", math.inf
    for run in waiting:
        if run in has_room:
            return run, reason
        size = checkpoint_size(run)
        if size >= too_large:
            continue
        left_out = fitting([*beside, _expected(store, run)], max_mib, max_files, SUFFIX)[1]
        if not left_out:
            return run, reason
        reason, too_large = reason or left_out[run], size
    return None, reason


def checkpoint_size(run: Run) -> int:
    """Bytes that a run's checkpoint has at most: weights, buffers, the momentum of each weight, and its history."""
    return _state_size(run.model) + 64 * 2**10 + 500 * run.protocol.epochs


@cache
def _state_size(model: ModelSpec) -> int:
    network = build_spec(model, 0, device="meta")
    tensors = [*network.state_dict().values(), *network.parameters()]
    return sum(tensor.nbytes + 2**10 for tensor in tensors)  # a file in a zip each, with its name twice


def _there(store: Store, runs: list[Run], under_way: list[Run]) -> list[Packed]:
    """What is to be packed, in the order of importance; of what is trained, what will be."""
    finished = [packed for run in runs if run not in under_way and (packed := _finished(store, run))]
    done = {packed.run for packed in finished}
    begun = [
        _expected(store, run)
        for run in in_order(store, runs)
        if run in under_way or (run not in done and (store.folder(run) / CHECKPOINT).exists())
    ]
    return finished + begun


def _finished(store: Store, run: Run) -> Packed | None:
    sizes = _sizes(store, run, DONE_FILES)
    if "result.json" not in sizes:
        return None
    return _of_sizes(run, {name: sizes[name] for name in done_files(sizes)})


def _expected(store: Store, run: Run) -> Packed:
    sizes = _sizes(store, run, UNDER_WAY_FILES)
    return _of_sizes(run, {**sizes, CHECKPOINT: max(sizes.get(CHECKPOINT, 0), checkpoint_size(run))})


def _sizes(store: Store, run: Run, names: tuple[str, ...]) -> dict[str, int]:
    folder = store.folder(run)
    return {name: (folder / name).stat().st_size for name in names if (folder / name).exists()}


def _of_sizes(run: Run, sizes: dict[str, int]) -> Packed:
    return Packed(run, {name: {"sha256": "0" * 64, "size": size} for name, size in sizes.items()})
