"""The list of a campaign, campaign.yaml: which runs are trained first. slices.py trains down it."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cells import Cell
from experiments.estimate import Estimate
from experiments.plan import Plan, plan_of
from experiments.published import read_published
from experiments.rows import read_rows
from experiments.scales import read_scales
from experiments.settings import ITEMS, Settings, check_keys
from experiments.studies import read_studies
from experiments.yaml_files import read_yaml
from xnets.errors import XNetsError
from xnets.training import Run

CAMPAIGN = Path(__file__).parent / "campaign.yaml"


@dataclass(frozen=True)
class Entry:
    """A line of campaign.yaml."""

    scale: str
    items: tuple[str, ...]  # studies too
    networks: tuple[str, ...] = ()
    seeds: int | None = None


def read_campaign(path: Path = CAMPAIGN) -> list[Entry]:
    """The entries, in their order. Raises XNetsError, in one sentence, for what none can be."""
    said = read_yaml(path)
    if not isinstance(said, list) or not said:
        raise XNetsError(f"{path.name} must be a list of `- {{scale: ..., items: [...]}}` lines.")
    return [_entry(f"{path.name}: entry {number}", entry) for number, entry in enumerate(said, 1)]


def _entry(where: str, said: Any) -> Entry:
    if not isinstance(said, dict):
        raise XNetsError(f"{where} must be {{scale: ..., items: [...]}}, not {said!r}.")
    check_keys(where, said, ("scale", "items", "studies", "networks", "seeds"))
    if said.get("scale") not in read_scales():
        raise XNetsError(f"{where}: scale must be one of {', '.join(read_scales())}, not {said.get('scale')!r}.")
    studies = read_studies(said["scale"])
    models = {row.model for row in read_rows() if row.model}
    models |= {name for study in studies.values() for name in (*study.networks, *study.references)}
    known = {"items": ITEMS, "studies": tuple(studies), "networks": sorted(models)}
    for key, names in known.items():
        if not isinstance(said.get(key, []), list):
            raise XNetsError(f"{where}: {key} must be a list, not {said[key]!r}.")
        check_keys(f"{where}: {key}", dict.fromkeys(said.get(key, [])), names)
    items = (*said.get("items", []), *said.get("studies", []))
    if not items:
        raise XNetsError(f"{where} needs items or studies.")
    seeds = said.get("seeds")
    if seeds is not None and (type(seeds) is not int or seeds < 1):
        raise XNetsError(f"{where}: seeds must be a whole number >= 1, not {seeds!r}.")
    return Entry(said["scale"], items, tuple(said.get("networks", ())), seeds)


def plans_of(settings: Settings, entries: list[Entry]) -> dict[str, Plan]:
    """The plan of each scale that an entry names."""
    return {scale: plan_of(settings, scale) for scale in dict.fromkeys(entry.scale for entry in entries)}


def cells_of(entry: Entry, plan: Plan) -> list[Cell]:
    """The configurations that an entry asks for, of its scale's plan."""
    return [
        cell
        for cell in plan.cells
        if set(cell.items) & set(entry.items) and (not entry.networks or cell.model.name in entry.networks)
    ]


def published_runs(entries: list[Entry]) -> set[Run]:
    """Runs of their scales that the repository has the results of: nobody need train them again."""
    return {record.run for scale in {entry.scale for entry in entries} for record in read_published(scale)}


def campaign_runs(
    plans: dict[str, Plan], entries: list[Entry], missing_ok: bool = False, without: Collection[str] = ()
) -> dict[Entry, dict[Run, float]]:
    """The runs of each entry, in the order they are trained in, and the seconds each is likely to take on one core.

    A run that two entries want counts for the first. missing_ok: for looking ahead, before the data are prepared.
    without: data sets whose runs are passed over.
    """
    estimates = {scale: Estimate(plans[scale]) for scale in dict.fromkeys(entry.scale for entry in entries)}
    known: set[Run] = set()
    wanted = {}
    for entry in entries:
        plan, seconds = plans[entry.scale], estimates[entry.scale].seconds
        found = [
            (place, seconds(run), run)
            for cell in cells_of(entry, plan)
            if cell.dataset not in without
            for place, run in enumerate(cell.runs(plan.digest(cell.dataset, missing_ok))[: entry.seeds])
        ]
        in_order = sorted(found, key=lambda each: each[:2])
        wanted[entry] = {run: length for _, length, run in in_order if run not in known}
        known.update(wanted[entry])
    return wanted
