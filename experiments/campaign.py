"""A campaign in slices: minutes at a time on machines that keep nothing. campaign.yaml says what is trained first."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.bundles.exporting import Exported, NothingToExport, export_runs
from experiments.bundles.format import check_bundle
from experiments.bundles.volumes import joined
from experiments.cells import Cell
from experiments.estimate import Estimate
from experiments.local import devices_here, run_in_pool, stop_workers
from experiments.plan import Plan, plan_of
from experiments.rows import read_rows
from experiments.scales import read_scales
from experiments.settings import ITEMS, Settings, check_keys
from experiments.stages import ready_data
from experiments.store import Store
from experiments.studies import read_studies
from experiments.yaml_files import read_yaml
from xnets.errors import XNetsError
from xnets.training import Run

CAMPAIGN = Path(__file__).parent / "campaign.yaml"
BUNDLE = "campaign.tar"
LOOK_EVERY = 2.0  # seconds, for new checkpoints
Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A line of campaign.yaml."""

    scale: str
    items: tuple[str, ...]  # studies too
    networks: tuple[str, ...] = ()
    seeds: int | None = None


@dataclass(frozen=True)
class Slice:
    """What came of some minutes: the runs that failed or were stopped, with the reason, and what was packed."""

    failed: dict[Run, str]
    packed: Exported


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


def prepare(settings: Settings, plans: dict[str, Plan], entries: list[Entry], say: Say) -> set[str]:
    """Prepare the data of all entries; those that cannot be had are returned, and why is said."""
    missing = set()
    for name in dict.fromkeys(cell.dataset for entry in entries for cell in cells_of(entry, plans[entry.scale])):
        try:
            ready_data(name, settings.data_folder, settings.sources.get(name))
        except XNetsError as error:
            missing.add(name)
            say(f"{name}: passed over. {error}")
    return missing


def run_slice(
    settings: Settings, entries: list[Entry], minutes: float, out: Path, say: Say, reserve: float = 45.0,
    max_mib: float = 16.0, max_files: int = 8,
) -> Slice:  # fmt: skip
    """Train down the list until the minutes are nearly over, then pack what was finished and the checkpoints.

    Data that are not prepared are prepared first. Meanwhile `out` is packed anew with each checkpoint, so that a slice
    that is killed loses at most one interval. SIGTERM ends it early, as the end of its time does.

    Args:
        settings: store, data, workers and kernel, as in params.yaml.
        entries: of read_campaign.
        minutes: of all of it.
        out: the folder for the bundles, campaign-1.tar, ...
        say: told of each event in words.
        reserve: seconds kept for writing and packing checkpoints.
        max_mib, max_files: of the bundles; what does not fit is left out, and said.

    Raises:
        XNetsError: nothing left to train, bundles in `out` that the store has not taken in, another process at the
            store, a full disk.
    """
    deadline = time.monotonic() + 60 * minutes - reserve
    store, plans = Store(settings.store), plans_of(settings, entries)
    _check_taken_in(store, out)
    missing = prepare(settings, plans, entries, say)
    wanted = [run for runs in campaign_runs(plans, entries, without=missing).values() for run in runs]
    if not wanted:
        raise XNetsError("The campaign has no run whose data are here: name them under data.sources in params.yaml.")
    runs = [run for run in wanted if not store.has("train", run) or not store.has("evaluate", run)]
    if not runs:
        raise XNetsError(f"All {len(wanted)} runs of the campaign whose data are here are finished.")
    say(f"{len(wanted) - len(runs)} of {len(wanted)} runs are finished; training the next ones")

    def pack(live: bool) -> Exported:
        return _pack(store, wanted, out, max_mib, max_files, live)

    ended = threading.Event()

    def on_event(kind: str, run: Run | None, content: Any) -> None:
        if kind == "epoch" and run is not None:
            content = f"epoch {content['epoch'] + 1} of {run.protocol.epochs}, test {content['test_top1']:.2f} %"
        say(" ".join(filter(None, (kind, run.label if run else "", content))))

    def stop(*_: Any) -> None:
        ended.set()
        stop_workers()

    failed: dict[Run, str] = {}
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with store.lock():
            for run in runs:
                store.forget_failure(run)
            with _timer(deadline - time.monotonic(), stop), _packed_anew(store, wanted, pack):
                devices = devices_here(settings, len(runs))
                failed = run_in_pool(("train", "evaluate"), runs, settings, on_event, ended.is_set, devices)
    finally:
        signal.signal(signal.SIGTERM, before)
        packed = pack(live=False)
    return Slice(failed, packed)


def _check_taken_in(store: Store, out: Path) -> None:
    """Raise XNetsError if `out`, whose bundles will be replaced, has a run that the store knows nothing of."""
    with joined(sorted(out.glob(f"{Path(BUNDLE).stem}-*")), out) as bundles:
        for packed in (packed for path in bundles for packed in check_bundle(path)):
            begun = (store.folder(packed.run) / "checkpoint.pt").exists()
            if not store.is_done(packed.run) and (packed.finished or not begun):
                raise XNetsError(
                    f"{out} has bundles of an earlier slice with {packed.run.label}, which {store.root} lacks: "
                    "`xnets store import` them first, or name another folder."
                )


def _pack(store: Store, runs: list[Run], out: Path, max_mib: float, max_files: int, live: bool) -> Exported:
    """Bundles of everything there is. Those of an earlier packing go."""
    out.mkdir(parents=True, exist_ok=True)
    for attempt in range(3):
        try:
            done = export_runs(
                store, out / BUNDLE, runs, unfinished=True, max_mib=max_mib, max_files=max_files, live=live
            )
        except NothingToExport as error:
            return Exported(left_out=error.left_out)
        except XNetsError:
            if not live or attempt == 2:  # a checkpoint that was replaced while it was read is there again at once
                raise
        else:
            for old in out.glob(f"{Path(BUNDLE).stem}-*"):
                if old not in done.files:
                    old.unlink()
            return done
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def _timer(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(max(0.0, seconds), call)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _packed_anew(store: Store, runs: list[Run], pack: Callable[[bool], Any]) -> Iterator[None]:
    """Call pack(True) in the background whenever there is a new checkpoint or result; one that fails is tried again."""
    ended = threading.Event()

    def work() -> None:
        before = _files_of(store, runs)
        while not ended.wait(LOOK_EVERY):
            now = _files_of(store, runs)
            if now != before:
                with contextlib.suppress(XNetsError, OSError):
                    pack(True)
                    before = now

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _files_of(store: Store, runs: list[Run]) -> dict[Path, int]:
    """When each checkpoint, result and evaluation was written."""
    found = {}
    for path in (
        store.folder(run) / name for run in runs for name in ("checkpoint.pt", "result.json", "evaluation.json")
    ):
        with contextlib.suppress(OSError):
            found[path] = path.stat().st_mtime_ns
    return found
