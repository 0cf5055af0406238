"""A cluster preset: what each job asks for, and how runs are spread over jobs. One YAML file, checked whole."""

import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from experiments.scales import read_scales
from experiments.yaml_files import read_yaml, unknown_key
from xnets.errors import XNetsError

CLUSTERS = Path(__file__).parent / "clusters"


@dataclass(frozen=True)
class Shape:
    """Nodes of a job, and SLURM's tasks on each: more than one process in all is one run on several GPUs."""

    nodes: int = 1
    tasks: int = 1

    @property
    def processes(self) -> int:
        """Of the whole job."""
        return self.nodes * self.tasks


@dataclass(frozen=True)
class Preset:
    """See slurm/clusters/generic.yaml for what each key means."""

    name: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 1
    gres: str | None = None
    cpus: int = 8
    memory_gb: float | None = 32
    time_minutes: int = 240
    signal_seconds: int = 120
    at_most: int = 100
    runs_at_once: int = 1
    minutes_per_job: float = 60
    distributed: dict[str, Shape] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    python: str | None = None
    scratch: str | None = None
    poll_seconds: float = 15
    sbatch: dict[str, Any] = field(default_factory=dict)

    def shape(self, dataset: str) -> Shape:
        """Of the jobs that train on this data set."""
        return self.distributed.get(dataset, Shape())

    @property
    def device(self) -> str:
        """Of its jobs: "cuda" or "cpu"."""
        return "cuda" if self.gpus or self.gres else "cpu"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for the record of a submission."""
        return asdict(self)


_TEXTS = ("partition", "account", "qos", "constraint", "gres", "python", "scratch")
_WHOLE = {"gpus": 0, "cpus": 1, "time_minutes": 2, "signal_seconds": 10, "at_most": 1, "runs_at_once": 1}  # least
_NUMBERS = ("memory_gb", "minutes_per_job", "poll_seconds")
_OURS = (
    "array", "job-name", "output", "error", "open-mode", "chdir", "signal", "requeue", "time", "nodes",
    "ntasks-per-node", "cpus-per-task", "mem", "no-requeue", "ntasks", "mem-per-cpu", "mem-per-gpu", "gpus",
    "gpus-per-node", "gpus-per-task", "wrap",
)  # fmt: skip


def read_preset(name: str, threads: int = 1) -> Preset:
    """The preset `name` of slurm/clusters, or of the file `name`. threads: of each run on the CPU.

    Raises XNetsError with one sentence for each mistake in it.
    """
    known = sorted(path.stem for path in CLUSTERS.glob("*.yaml"))
    path = CLUSTERS / f"{name}.yaml" if name in known else Path(os.path.expanduser(name))
    try:
        said = read_yaml(path)
    except OSError:
        raise XNetsError(
            f"There is no cluster {name!r}: say one of {', '.join(known)} or the path of a .yaml file of your own "
            f"(copy slurm/clusters/generic.yaml)."
        ) from None
    except UnicodeDecodeError:
        raise XNetsError(f"{path} is not a text file: copy slurm/clusters/generic.yaml.") from None
    if not isinstance(said, dict):
        raise XNetsError(f"{path} must be `key: value` lines; slurm/clusters/generic.yaml shows them all.")
    mistakes = _mistakes(said, threads)
    if mistakes:
        raise XNetsError("\n  ".join([f"{path} has mistakes:" if len(mistakes) > 1 else f"{path}:", *mistakes]))
    shapes = {dataset: Shape(**shape) for dataset, shape in (said.get("distributed") or {}).items()}
    lists = {"distributed": shapes, "setup": tuple(said.get("setup") or ()), "sbatch": said.get("sbatch") or {}}
    return Preset(path.stem, **{**said, **{key: lists[key] for key in lists if key in said}})


def _mistakes(said: dict[str, Any], threads: int) -> list[str]:
    known = [f.name for f in fields(Preset) if f.name != "name"]
    elsewhere = "What sbatch alone knows goes under `sbatch:`."
    found = [unknown_key(key, known, elsewhere) for key in said if key not in known]
    get = {f.name: f.default for f in fields(Preset)} | said
    for key in _TEXTS:
        if get[key] is not None and (not isinstance(get[key], str) or not get[key].strip()):
            found.append(f"{key} must be a text or null, not {get[key]!r}.")
    for key, least in _WHOLE.items():
        if type(get[key]) is not int or get[key] < least:
            found.append(f"{key} must be a whole number >= {least}, not {get[key]!r}.")
    for key in _NUMBERS:
        right = type(get[key]) in (int, float) and math.isfinite(get[key])
        right = right and (get[key] > 0 or (key == "minutes_per_job" and get[key] == 0))
        if not right and not (key == "memory_gb" and get[key] is None):
            least = ">= 0" if key == "minutes_per_job" else "> 0"
            found.append(f"{key} must be a number {least}, not {get[key]!r}.")
    for key, kind, what in (("setup", list, "list of shell lines"), ("sbatch", dict, "list of `option: value` lines")):
        if said.get(key) is not None and not isinstance(said[key], kind):
            found.append(f"{key} must be a {what}, not {said[key]!r}.")
    if isinstance(said.get("setup"), list) and not all(isinstance(line, str) for line in said["setup"]):
        found.append("setup must be a list of shell lines; put quotes around lines with a colon.")
    if isinstance(said.get("sbatch"), dict):
        for key in said["sbatch"]:
            if str(key).replace("_", "-") in _OURS:
                found.append(f"sbatch: {key} is set by the sweep itself: leave it out.")
            elif len(str(key)) == 1:
                found.append(f"sbatch: {key} is a short name: write the option out.")
            elif key in known:
                found.append(f"sbatch: {key} is a key of its own: take it out of sbatch.")
            elif said["sbatch"][key] is False or not isinstance(said["sbatch"][key], str | int | float):
                found.append(f"sbatch: {key} must be a text, a number, or true for an option without a value.")
    found += _mistaken_shapes(said.get("distributed"))
    if not found:
        found += _contradictions(said, get, threads)
    return found


def _mistaken_shapes(distributed: Any) -> list[str]:
    if distributed is None:
        return []
    if not isinstance(distributed, dict):
        return [f"distributed must be `data set: {{nodes: 1, tasks: 4}}` lines, not {distributed!r}."]
    known = sorted({name for scale in read_scales().values() for name in scale["datasets"].values()})
    unknown = [
        f"distributed: {dataset!r} is no data set of experiments/scales.yaml ({', '.join(known)})."
        for dataset in distributed
        if dataset not in known
    ]
    return unknown + [
        f"distributed: {dataset} must be {{nodes: N, tasks: N}} with whole numbers >= 1, not {shape!r}."
        for dataset, shape in distributed.items()
        if not isinstance(shape, dict)
        or not set(shape) <= {"nodes", "tasks"}
        or any(type(n) is not int or n < 1 for n in shape.values())
    ]


def _contradictions(said: dict[str, Any], get: dict[str, Any], threads: int) -> list[str]:
    """What is wrong only together."""
    found = []
    if get["gres"] and get["gpus"] > 1:
        found.append("gres and gpus both ask for GPUs: leave one of them out.")
    if get["gres"] and any(shape.get("tasks", 1) > 1 for shape in (said.get("distributed") or {}).values()):
        found.append("gres is for the whole job: say gpus, for each task, where distributed has several tasks.")
    if 60 * get["time_minutes"] < get["signal_seconds"] + 60:
        found.append(
            f"time_minutes {get['time_minutes']} leaves no minute to train before the warning, which comes "
            f"signal_seconds {get['signal_seconds']} ahead of the end: raise the one or lower the other."
        )
    if get["memory_gb"] is not None and get["memory_gb"] < 0.25:
        found.append(f"memory_gb {get['memory_gb']} is too little for torch alone: say at least 0.25.")
    if get["minutes_per_job"] > get["time_minutes"]:
        found.append(
            f"minutes_per_job {get['minutes_per_job']} is more than time_minutes {get['time_minutes']}: lower it."
        )
    if get["runs_at_once"] * threads > get["cpus"]:
        found.append(
            f"runs_at_once {get['runs_at_once']} of {threads} thread{'s' * (threads > 1)} each need as many cpus, not "
            f"{get['cpus']}: raise cpus or lower runs_at_once."
        )
    if get["scratch"] and not get["scratch"].startswith(("/", "$", "~")):
        found.append(
            f"scratch must be an absolute folder on the nodes, or begin with a variable, not {get['scratch']!r}."
        )
    return found
