"""Which runs go into one job: large ones alone, small ones together until the job is worth a scheduler's while."""

from collections.abc import Callable
from dataclasses import dataclass

from slurm.preset import Preset, Shape
from xnets.training import Run


@dataclass(frozen=True)
class Pack:
    """The runs of one job, in their order, and the job's shape."""

    runs: tuple[Run, ...]
    shape: Shape


def make_packs(runs: list[Run], preset: Preset, seconds: Callable[[Run], float]) -> list[Pack]:
    """Every run in exactly one pack; the longest packs first. With `scratch`, a job's runs are all on one data set."""

    def kind(run: Run) -> tuple[Shape, str | None]:
        return preset.shape(run.dataset), run.dataset if preset.scratch else None

    packs: list[Pack] = []
    for shape, dataset in dict.fromkeys(map(kind, runs)):
        ours = sorted((run for run in runs if kind(run) == (shape, dataset)), key=seconds, reverse=True)
        if shape.processes > 1:
            packs += [Pack((run,), shape) for run in ours]
        else:
            packs += [Pack(tuple(pack), shape) for pack in _fill(ours, preset, seconds)]
    return sorted(packs, key=lambda pack: sum(map(seconds, pack.runs)), reverse=True)


def _fill(runs: list[Run], preset: Preset, seconds: Callable[[Run], float]) -> list[list[Run]]:
    """Runs one after another into the same pack while the job is expected to stay within minutes_per_job."""
    room = 60 * preset.minutes_per_job
    packs: list[list[Run]] = []
    lanes: list[float] = []  # until when each of the runs_at_once workers of the last pack is busy
    for run in runs:
        need = seconds(run)
        if not lanes or not room or max(lanes) > room or min(lanes) + need > room:
            packs.append([])
            lanes = [0.0] * preset.runs_at_once
        packs[-1].append(run)
        lanes[lanes.index(min(lanes))] += need
    return packs
