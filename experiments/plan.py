"""From params.yaml, the paper's rows and the studies to the runs that are wanted. Each run is trained once."""

from dataclasses import dataclass, replace

from experiments.cells import Cell, paired, protocol_at, spec_at
from experiments.rows import Row, read_rows
from experiments.scales import read_scales
from experiments.settings import ITEMS, Settings, check_keys
from experiments.studies import check_studies, read_studies, study_cells
from xnets.data import open_data
from xnets.errors import XNetsError
from xnets.training import Run

NOT_PREPARED = "not prepared yet"  # stands for the digest of data that are not there


@dataclass(frozen=True)
class Plan:
    """All cells of a scale: the paper's rows first, then the studies."""

    settings: Settings
    about: str
    cells: tuple[Cell, ...]

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that are needed."""
        return sorted({cell.dataset for cell in self.cells})

    def digest(self, dataset: str, missing_ok: bool = False) -> str:
        """Of a data set as it is prepared; where it is not, XNetsError, or NOT_PREPARED if missing_ok."""
        folder = self.settings.data_folder / dataset
        return NOT_PREPARED if missing_ok and not (folder / "manifest.json").exists() else open_data(folder).digest

    def unprepared(self) -> list[str]:
        """Names of the data sets that are needed and are not prepared."""
        return [name for name in self.datasets if self.digest(name, missing_ok=True) == NOT_PREPARED]

    def _digests(self, missing_ok: bool) -> dict[str, str]:
        return {name: self.digest(name, missing_ok) for name in self.datasets}

    def runs(self, missing_ok: bool = False) -> list[Run]:
        """All runs, each once. The data must be prepared, their digest is part of a run; unless missing_ok, for
        looking ahead."""
        digests = self._digests(missing_ok)
        return list(dict.fromkeys(run for cell in self.cells for run in cell.runs(digests[cell.dataset])))

    def runs_of_items(self, missing_ok: bool = False) -> dict[str, list[Run]]:
        """The runs that each table, figure and study shows: all runs of all its cells, shared ones too."""
        digests = self._digests(missing_ok)
        shown: dict[str, list[Run]] = {}
        for cell in self.cells:
            for item in cell.items:
                shown.setdefault(item, []).extend(cell.runs(digests[cell.dataset]))
        studies = [item for item in shown if item not in ITEMS]
        return {item: shown[item] for item in (*ITEMS, *studies) if item in shown}

    def cell_of(self, row: Row) -> Cell | None:
        """The cell that a row shows, or None if this scale does not train it."""
        return next((cell for cell in self.cells if row in cell.rows), None)


def make_plan(settings: Settings) -> Plan:
    """The cells of settings.scale: as many seeds as settings.seeds asks for, and the studies that it names."""
    if settings.scale not in read_scales():
        raise XNetsError(f"There is no scale {settings.scale!r}; there are {', '.join(read_scales())}.")
    scale = read_scales()[settings.scale]
    check_keys(f"scales.yaml: {settings.scale}", scale, ("about", "items", "datasets", "networks", "protocols"))
    check_keys(f"scales.yaml: {settings.scale}: items", dict.fromkeys(scale["items"]), ITEMS)
    _check_models_with_seeds(settings)
    cells: dict[tuple, Cell] = {}
    for row in read_rows():
        if not row.model or row.item not in scale["items"]:
            continue
        dataset = scale["datasets"][row.dataset]
        spec = spec_at(scale, row.model, dataset, settings)
        protocol = protocol_at(scale, settings.scale, row.protocol)
        seeds = paired(settings.seed_count(row.item, row.model))
        known = cells.get((spec, dataset, protocol)) or Cell(spec, dataset, protocol, ())
        cells[known.key] = replace(known, seeds=max(known.seeds, seeds, key=len), rows=(*known.rows, row))
    check_studies(settings)
    studies = [study for name, study in read_studies(settings.scale).items() if name in settings.studies]
    planned = (*cells.values(), *(cell for study in studies for cell in study_cells(study, scale, settings)))
    if not planned:
        raise XNetsError(
            f"params.yaml: scale {settings.scale} has no table or figure, and studies names none that it has "
            f"({', '.join(read_studies(settings.scale)) or 'there is none'})."
        )
    return Plan(settings, scale["about"], planned)


def plan_of(settings: Settings, scale: str) -> Plan:
    """The plan of any scale with everything that it can train: all its items and all its studies."""
    return make_plan(replace(settings, scale=scale, studies=tuple(read_studies(scale))))


def _check_models_with_seeds(settings: Settings) -> None:
    for item, asked in settings.seeds.items():
        models = {row.model for row in read_rows() if row.item == item and row.model}
        if isinstance(asked, dict):
            check_keys(f"params.yaml: seeds: {item}", asked, sorted(models))
    if not settings.seeds:
        raise XNetsError("params.yaml: seeds is empty: take it back from git.")
