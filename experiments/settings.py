"""params.yaml, read and checked."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from experiments.executors import executor_names
from experiments.scales import read_scales
from experiments.yaml_files import read_yaml, unknown_key
from xnets.errors import XNetsError

ITEMS = ("table1", "table2", "table3", "table4", "table5", "figure3", "figure4", "figure5", "figure6")
DEVICES = ("auto", "cpu", "cuda")
KERNELS = ("dense", "direct", "triton", "auto")  # of xnets.layers, which needs torch


@dataclass(frozen=True)
class LocalSettings:
    """How runs are spread over this machine; see params.yaml."""

    device: str = "auto"
    workers: int = 0
    threads: int = 1
    kernel: str = "dense"
    deterministic: bool = False
    compile: bool = False
    checkpoint_minutes: float = 5

    def __post_init__(self) -> None:
        check_choice("params.yaml: local.device", self.device, DEVICES)
        check_choice("params.yaml: local.kernel", self.kernel, KERNELS)
        whole = [self.workers, self.threads]
        if not all(type(n) is int for n in whole) or type(self.checkpoint_minutes) not in (int, float):
            raise XNetsError("params.yaml: local.workers, threads and checkpoint_minutes must be numbers.")
        if not all(type(said) is bool for said in (self.deterministic, self.compile)):
            raise XNetsError("params.yaml: local.deterministic and compile must be true or false.")
        if self.workers < 0 or self.threads < 1 or self.checkpoint_minutes < 0:
            raise XNetsError("params.yaml: local.workers and checkpoint_minutes must be >= 0, local.threads >= 1.")


@dataclass(frozen=True)
class SlurmSettings:
    """Which cluster the executor "slurm" uses; everything else about it is in its file."""

    cluster: str = "generic"

    def __post_init__(self) -> None:
        if not isinstance(self.cluster, str) or not self.cluster:
            raise XNetsError(f"params.yaml: slurm.cluster must be a name or a file, not {self.cluster!r}.")


@dataclass(frozen=True)
class Settings:
    """What params.yaml says. seeds: item -> a number, or network -> number. studies: names, of any scale."""

    scale: str
    seeds: dict[str, int | dict[str, int]]
    executor: str = "local"
    store: Path = Path("store")
    data_folder: Path = Path("data")
    sources: dict[str, str | None] = field(default_factory=dict)
    local: LocalSettings = field(default_factory=LocalSettings)
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    studies: tuple[str, ...] = ()

    @property
    def results(self) -> Path:
        """Where this scale's results go."""
        return Path("results") / self.scale

    def seed_count(self, item: str, model: str) -> int:
        """How many runs `params.yaml` asks for, for this network in this item."""
        asked = self.seeds.get(item, 1)
        return asked if isinstance(asked, int) else asked.get(model, 1)


def read_settings(path: Path = Path("params.yaml")) -> Settings:
    """Read and check params.yaml; a mistake is one sentence."""
    try:
        said = read_yaml(path, ": mend it, or take it back from git")
    except FileNotFoundError:
        raise XNetsError(f"{path} is not here: run this in the repository's top folder.") from None
    if not isinstance(said, dict):
        raise XNetsError(f"{path} is empty: take it back from git.")
    check_keys(path.name, said, ("scale", "seeds", "studies", "data", "store", "executor", "local", "slurm"))
    for key in ("seeds", "data", "local", "slurm"):
        if not isinstance(said.get(key) or {}, dict):
            raise XNetsError(f"{path.name}: {key} must be a list of `name: value` lines, not {said[key]!r}.")
    data = said.get("data") or {}
    check_keys(f"{path.name}: data", data, ("folder", "sources"))
    local = said.get("local") or {}
    check_keys(f"{path.name}: local", local, [f.name for f in fields(LocalSettings)])
    slurm = said.get("slurm") or {}
    check_keys(f"{path.name}: slurm", slurm, [f.name for f in fields(SlurmSettings)])
    sources = data.get("sources") or {}
    if not isinstance(sources, dict) or not all(isinstance(s, str | None) for s in sources.values()):
        raise XNetsError(
            f"{path.name}: data.sources must be `name: folder` or `name: download` lines, not {sources!r}."
        )
    for key, folder in (("store", said.get("store", "store")), ("data.folder", data.get("folder", "data"))):
        if not isinstance(folder, str) or not folder:
            raise XNetsError(f"{path.name}: {key} must be the name of a folder, not {folder!r}.")
    studies = said.get("studies") or []
    if not isinstance(studies, list) or not all(isinstance(name, str) for name in studies):
        raise XNetsError(f"{path.name}: studies must be a list of names, [..., ...], not {studies!r}.")
    check_choice("params.yaml: scale", said.get("scale"), list(read_scales()))
    check_choice("params.yaml: executor", said.get("executor", "local"), executor_names())
    return Settings(
        scale=said["scale"], seeds=_checked_seeds(said.get("seeds") or {}), executor=said.get("executor", "local"),
        store=Path(said.get("store", "store")), data_folder=Path(data.get("folder", "data")),
        sources=sources, local=LocalSettings(**local), slurm=SlurmSettings(**slurm), studies=tuple(studies),
    )  # fmt: skip


def check_choice(what: str, said: Any, choices: list[str] | tuple[str, ...]) -> None:
    """Raise XNetsError unless `said` is one of `choices`."""
    if said not in choices:
        raise XNetsError(f"{what} must be one of {', '.join(choices)}, not {said!r}.")


def check_keys(where: str, said: dict[str, Any], known: Any) -> None:
    """Raise XNetsError for a key that is not known, with the nearest one that is."""
    for key in said:
        if key not in known:
            raise XNetsError(f"{where}: {unknown_key(key, known, 'Known are ' + ', '.join(known) + '.')}")


def _checked_seeds(seeds: dict[str, Any]) -> dict[str, int | dict[str, int]]:
    check_keys("params.yaml: seeds", seeds, ITEMS)
    for item, asked in seeds.items():
        for who, n in asked.items() if isinstance(asked, dict) else [(item, asked)]:
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise XNetsError(f"params.yaml: seeds of {item} for {who} must be a whole number >= 1, not {n!r}.")
    return seeds
