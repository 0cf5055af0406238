"""Studies: trainings beyond the paper's tables and figures, as studies.yaml beside this file declares them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from experiments.cells import Cell, Seeds, crossed, paired, protocol_at, spec_at
from experiments.scales import read_protocols, read_scales
from experiments.settings import ITEMS, Settings, check_keys
from experiments.yaml_files import read_yaml
from xnets.errors import XNetsError
from xnets.graphs import find_construction
from xnets.models import ModelSpec, parse_name
from xnets.training import Protocol

STUDIES = Path(__file__).parent / "studies.yaml"
FIGURES = ("comparison", "compression", "connectivity", "stability")  # how paper_figures can draw one
FACTORS = tuple(name for name in ModelSpec.__dataclass_fields__ if name not in ("name", "num_classes"))


@dataclass(frozen=True)
class Study:
    """A study at one scale; studies.yaml says what each part means.

    factors: ModelSpec field -> its levels, in order. seeds: of each configuration. network, protocol_changes: over
    what the scale changes.
    """

    name: str
    question: str
    networks: tuple[str, ...]
    dataset: str
    protocol: str
    seeds: Seeds
    figures: tuple[str, ...] = ("comparison",)
    references: tuple[str, ...] = ()
    factors: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    protocol_changes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_crossed(self) -> bool:
        """Whether graph seeds and train seeds are told apart."""
        return len({g for g, _ in self.seeds}) < len(self.seeds)

    def levels(self) -> Iterator[dict[str, Any]]:
        """Every combination of the factors' levels, the last factor changing fastest."""
        for combination in product(*self.factors.values()):
            yield dict(zip(self.factors, combination, strict=True))


def study_cells(study: Study, scale: dict[str, Any], settings: Settings) -> list[Cell]:
    """The configurations of a study and its references, as `scale` trains them."""
    if study.dataset not in scale["datasets"]:
        known = ", ".join(scale["datasets"])
        raise XNetsError(f"{_where(study.name)}: scale {settings.scale} has no {study.dataset!r}, only {known}.")
    dataset = scale["datasets"][study.dataset]
    try:
        protocol = protocol_at(scale, settings.scale, study.protocol, **study.protocol_changes)
    except TypeError as error:
        raise XNetsError(f"{_where(study.name)}: protocol_changes has a value of the wrong kind: {error}.") from None
    trains = len({t for _, t in study.seeds})
    specs = {
        spec_at(scale, name, dataset, settings, **{**study.network, **levels}): _seeds(study.seeds, levels, study)
        for name in study.networks
        for levels in study.levels()
    }
    for name in study.references:
        specs[spec_at(scale, name, dataset, settings, **study.network)] = paired(trains)
    return [Cell(spec, dataset, protocol, seeds, study=study.name) for spec, seeds in specs.items()]


def _seeds(seeds: Seeds, levels: dict[str, Any], study: Study) -> Seeds:
    """Without the graph seeds that would give the same graph, and so the same run, again."""
    graph = levels.get("graph", study.network.get("graph"))
    if study.is_crossed and graph and not find_construction(graph).seeded:
        return tuple((g, t) for g, t in seeds if g == 0)
    return seeds


def check_studies(settings: Settings) -> None:
    """Raise XNetsError unless studies.yaml is sound at every scale and has all that params.yaml names."""
    known = {name for scale in read_scales() for name in read_studies(scale)}
    check_keys("params.yaml: studies", dict.fromkeys(settings.studies), sorted(known))


@cache
def read_studies(scale: str, path: Path = STUDIES) -> dict[str, Study]:
    """The studies that are trained at this scale. Raises XNetsError for what no study can be, in one sentence."""
    said = read_yaml(path) or {}
    if not isinstance(said, dict):
        raise XNetsError(f"{path.name} must be a list of `name: study` lines.")
    found = {}
    for name, entry in said.items():
        _check_name(name)
        keys = ("scales", *Study.__dataclass_fields__)
        if not isinstance(entry, dict) or not isinstance(entry.get("scales"), dict) or not entry["scales"]:
            raise XNetsError(f"{_where(name)} needs `scales:` and below it a line for each scale that trains it.")
        check_keys(f"{_where(name)}: scales", entry["scales"], list(read_scales()))
        if scale in entry["scales"]:
            changes = entry["scales"][scale] or {}
            if not isinstance(changes, dict):
                raise XNetsError(f"{_where(name)}: scales: {scale} must be `key: value` lines, not {changes!r}.")
            whole = {key: value for key, value in entry.items() if key != "scales"} | changes
            check_keys(_where(name), whole, [key for key in keys if key not in ("name", "scales")])
            try:
                found[name] = _study(name, whole)
            except TypeError as error:  # a list or a word where a name or a number should stand
                raise XNetsError(f"{_where(name)} has a value of the wrong kind: {error}.") from None
    return found


def _study(name: str, said: dict[str, Any]) -> Study:
    where = _where(name)
    for key in ("question", "networks", "dataset", "protocol", "seeds"):
        if key not in said:
            raise XNetsError(f"{where} lacks `{key}:`.")
    lists = {key: _listed(where, key, said[key]) for key in ("networks", "references", "figures") if key in said}
    factors = _mapping(where, "factors", said)
    check_keys(f"{where}: factors", factors, FACTORS)
    factors = {factor: _listed(where, factor, levels) for factor, levels in factors.items()}
    network, changes = _mapping(where, "network", said), _mapping(where, "protocol_changes", said)
    check_keys(f"{where}: network", network, FACTORS)
    check_keys(f"{where}: protocol_changes", changes, Protocol.__dataclass_fields__)
    if said["protocol"] not in read_protocols():
        raise XNetsError(f"{where}: unknown protocol {said['protocol']!r}; there are {', '.join(read_protocols())}.")
    study = Study(
        name, str(said["question"]), lists["networks"], str(said["dataset"]), said["protocol"],
        _read_seeds(where, said["seeds"]), lists.get("figures", ("comparison",)), lists.get("references", ()), factors,
        network, changes,
    )  # fmt: skip
    _check_sizes(where, study)
    _check_networks(where, study)
    _check_figures(where, study)
    return study


def _check_sizes(where: str, study: Study) -> None:
    for key, least in (("narrow", 1), ("drop_strides", 0)):
        for level in (*study.factors.get(key, ()), *([study.network[key]] if key in study.network else [])):
            if type(level) is not int or level < least:
                raise XNetsError(f"{where}: {key} must be a whole number >= {least}, not {level!r}.")


def _check_networks(where: str, study: Study) -> None:
    for graph in (*study.factors.get("graph", ()), *([study.network["graph"]] if "graph" in study.network else [])):
        _in_words(where, lambda graph=graph: find_construction(graph))
    for model in (*study.networks, *study.references):
        kind = _in_words(where, lambda model=model: parse_name(model).kind)
        if "graph" in study.factors and kind != "X" and model in study.networks:
            raise XNetsError(f"{where}: {model} has no graph to vary: name it under references.")


def _check_figures(where: str, study: Study) -> None:
    for figure in study.figures:
        if figure not in FIGURES:
            raise XNetsError(f"{where}: unknown figure {figure!r}; there are {', '.join(FIGURES)}.")
    if "compression" in study.figures and not all(parse_name(model).compression for model in study.networks):
        raise XNetsError(f"{where}: the figure compression needs networks with a C: name the others under references.")
    if "connectivity" in study.figures and len(study.factors.get("graph", ())) < 4:
        raise XNetsError(f"{where}: the figure connectivity needs a factor graph of at least 4 levels.")
    seeds = [len(set(side)) for side in zip(*study.seeds, strict=True)]
    if "stability" in study.figures and not (study.is_crossed and min(seeds) >= 2):
        raise XNetsError(f"{where}: the figure stability needs at least 2 graph seeds and 2 train seeds, crossed.")


def _read_seeds(where: str, said: Any) -> Seeds:
    """{paired: 3}, or {graph: 4, train: 4}: crossed."""
    keys = set(said) if isinstance(said, dict) else set()
    if keys not in ({"paired"}, {"graph", "train"}):
        raise XNetsError(f"{where}: seeds must be {{paired: 3}} or {{graph: 4, train: 4}}, not {said!r}.")
    for key, count in said.items():
        if type(count) is not int or count < 1:
            raise XNetsError(f"{where}: seeds: {key} must be a whole number >= 1, not {count!r}.")
    return paired(said["paired"]) if "paired" in said else crossed(said["graph"], said["train"])


def _listed(where: str, key: str, said: Any) -> tuple[Any, ...]:
    if not isinstance(said, list) or not said or any(isinstance(entry, list | dict) for entry in said):
        raise XNetsError(f"{where}: {key} must be a list of at least one entry, [..., ...], not {said!r}.")
    if len(set(said)) < len(said):
        raise XNetsError(f"{where}: {key} names something twice.")
    return tuple(said)


def _mapping(where: str, key: str, said: dict[str, Any]) -> dict[str, Any]:
    content = said.get(key) or {}
    if not isinstance(content, dict):
        raise XNetsError(f"{where}: {key} must be `name: value` lines, not {content!r}.")
    return content


def _in_words(where: str, look: Callable[[], Any]) -> Any:
    """What `look` finds; its complaint begins with `where`."""
    try:
        return look()
    except XNetsError as error:
        raise XNetsError(f"{where}: {error}") from None


def _check_name(name: Any) -> None:
    text = str(name)
    if text in ITEMS or not text.replace("-", "").isalnum() or text != text.lower():
        raise XNetsError(f"studies.yaml: {name!r} cannot be a study's name: small letters, digits and hyphens can.")


def _where(name: str) -> str:
    return f"studies.yaml: {name}"
