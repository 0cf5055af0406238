"""A slice of a campaign: minutes at a time, on machines that keep nothing."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.bundles.exporting import Exported, NothingToExport, export_runs
from experiments.bundles.importing import Imported, import_bundles
from experiments.bundles.packings import files_of_packings, next_packing, put_in_place
from experiments.bundles.volumes import clear_folders_in, folder_in
from experiments.campaign import Entry, campaign_runs, cells_of, plans_of, published_runs
from experiments.local import devices_here, run_in_pool, stop_workers
from experiments.plan import Plan
from experiments.settings import Settings
from experiments.stages import ready_data
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.training import Run

RESERVE = 45.0  # seconds of a slice kept for writing and packing checkpoints
LOOK_EVERY = 2.0  # seconds, for new checkpoints
Say = Callable[[str], None]


@dataclass(frozen=True)
class Slice:
    """What came of some minutes: the runs that failed or were stopped, with the reason, and what was packed.

    nothing_left: all runs were finished before it began.
    """

    failed: dict[Run, str]
    packed: Exported
    nothing_left: bool = False


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
    settings: Settings, entries: list[Entry], minutes: float, out: Path, say: Say, max_mib: float = 16.0,
    max_files: int = 8,
) -> Slice:  # fmt: skip
    """Train down the list until the minutes are nearly over, then pack what was finished and the checkpoints.

    Data that are not prepared are prepared first, and bundles in `out` are taken in. Meanwhile `out` is packed anew
    with each checkpoint, so that a slice that is killed loses at most one interval. SIGTERM ends it early, as the end
    of its time does.

    Args:
        settings: store, data, workers and kernel, as in params.yaml.
        entries: of read_campaign.
        minutes: of all of it.
        out: the folder for the bundles, campaign-1-1.tar, ...
        say: told of each event in words.
        max_mib, max_files: of the bundles; what does not fit is left out, and said.

    Raises:
        XNetsError: no data, bundles in `out` of another list, or damaged, another process at the store, a full disk.
    """
    deadline = time.monotonic() + 60 * minutes - RESERVE
    with folder_in(out):  # a folder that takes no bundles is better known now than after all the minutes
        pass
    store, plans = Store(settings.store), plans_of(settings, entries)
    brought = _taken_in(store, out)
    missing = prepare(settings, plans, entries, say)
    wanted = [run for runs in campaign_runs(plans, entries, without=missing).values() for run in runs]
    if not wanted:
        raise XNetsError("The campaign has no run whose data are here: name them under data.sources in params.yaml.")
    if others := [run for run in brought if run not in wanted]:
        raise XNetsError(
            f"{out} has bundles with {others[0].label}, which this list has not, or not its data: name another folder."
        )
    published = published_runs(entries)
    runs = [
        run for run in wanted if run not in published and not (store.has("train", run) and store.has("evaluate", run))
    ]
    runs.sort(key=lambda run: store.failure(run) is not None)  # what failed is tried again when all others are done
    if not runs:  # packed all the same: a slice that was killed at its very end may not have come to it
        say(f"all {len(wanted)} runs of the campaign whose data are here are finished")
        return Slice({}, _pack(store, wanted, out, max_mib, max_files, live=False), nothing_left=True)
    say(f"{len(wanted) - len(runs)} of {len(wanted)} runs are finished; training the next ones")

    told: set[str] = set()

    def pack(live: bool) -> Exported:
        done = _pack(store, wanted, out, max_mib, max_files, live)
        for reason in done.left_out if live else ():  # there is time yet to do as it says
            label = reason.partition(":")[0]
            if label not in told:
                told.add(label)
                say(f"left out so far: {reason}")
        return done

    ended = threading.Event()

    def on_event(kind: str, run: Run | None, content: Any) -> None:
        if kind == "start":  # not before: a run that a slice does not come to has still failed in the next
            store.forget_failure(run)
        if kind == "epoch":
            content = f"epoch {content['epoch'] + 1} of {run.protocol.epochs}, test {content['test_top1']:.2f} %"
        say(" ".join(filter(None, (kind, run.label if run else "", content))))

    def stop(*_: Any) -> None:
        ended.set()
        stop_workers()

    failed: dict[Run, str] = {}
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with store.lock(), _timer(deadline - time.monotonic(), stop), _packed_anew(store, wanted, pack, say):
            clear_folders_in(out)
            devices = devices_here(settings, len(runs))
            failed = run_in_pool(("train", "evaluate"), runs, settings, on_event, ended.is_set, devices)
    finally:
        signal.signal(signal.SIGTERM, before)
        packed = pack(live=False)
    return Slice(failed, packed)


def _taken_in(store: Store, out: Path) -> list[Run]:
    """Import the bundles in `out`, which will be replaced: their runs. XNetsError if one cannot be taken in."""
    files = files_of_packings(out)
    taken = import_bundles(store, files) if files else Imported()
    if lost := [*taken.conflicts, *taken.held]:
        raise XNetsError(f"{out} would lose what it has of a run, so name another folder. {lost[0]}")
    return taken.runs


def _pack(store: Store, runs: list[Run], out: Path, max_mib: float, max_files: int, live: bool) -> Exported:
    """Put bundles of everything there is into `out`, campaign-<number of the packing>-1.tar, ..., for those there."""
    with folder_in(out) as room:
        target = Path(room) / next_packing(out)
        for attempt in range(3):
            try:
                done = export_runs(
                    store, target, runs, unfinished=True, max_mib=max_mib, max_files=max_files, live=live
                )
            except NothingToExport as error:
                return Exported(left_out=error.left_out)
            except XNetsError:
                if not live or attempt == 2:  # a checkpoint that was replaced while it was read is there again at once
                    raise
            else:
                break
        done.files = put_in_place(done.files, out)
    return done


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
def _packed_anew(store: Store, runs: list[Run], pack: Callable[[bool], Any], say: Say) -> Iterator[None]:
    """Call pack(True) in the background whenever there is a new checkpoint or result.

    One that fails is tried again, and the first that does is said: what is lost at a kill has then no bound.
    """
    ended, begun = threading.Event(), _files_of(store, runs)

    def work() -> None:
        before, failed = begun, False
        while not ended.wait(LOOK_EVERY):
            now = _files_of(store, runs)
            if now != before:
                try:
                    pack(True)
                    before = now
                except (XNetsError, OSError) as error:
                    if not failed:
                        say(f"packing failed and is tried again every {LOOK_EVERY:g} seconds: {error}")
                    failed = True

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
