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
    """Every run in exactly one pack; the longest packs first."""
    packs: list[Pack] = []
    for shape in dict.fromkeys(preset.shape(run.dataset) for run in runs):
        ours = sorted((run for run in runs if preset.shape(run.dataset) == shape), key=seconds, reverse=True)
        if shape.processes > 1:
            packs += [Pack((run,), shape) for run in ours]
        else:
            packs += [Pack(tuple(pack), shape) for pack in _fill(ours, preset, seconds)]
    return packs


def _fill(runs: list[Run], preset: Preset, seconds: Callable[[Run], float]) -> list[list[Run]]:
    """Runs one after another into the same pack while the job is expected to stay within minutes_per_job."""
    room = 60 * preset.minutes_per_job
    packs: list[list[Run]] = []
    taken = float("inf")
    for run in runs:
        need = seconds(run) / preset.runs_at_once
        if taken + need > room:
            packs.append([])
            taken = 0.0
        packs[-1].append(run)
        taken += need
    return packs
