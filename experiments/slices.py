"""A slice of a campaign: minutes at a time, on machines that keep nothing."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.bundles.exporting import Exported, NothingToExport, export_runs
from experiments.bundles.importing import Imported, import_bundles
from experiments.bundles.packings import files_of_packings, held_alone, next_packing, put_in_place
from experiments.bundles.volumes import clear_folders_in, folder_in
from experiments.campaign import Entry, campaign_runs, cells_of, plans_of, published_runs
from experiments.carried import in_order, next_with_room, without_room
from experiments.local import STOPPED, devices_here, run_in_pool, stop_workers
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


@dataclass
class Folder:
    """Where the bundles of a slice are, and of how many files of what size they may be.

    there: the files of the last packing, or those it began with, which the next one replaces.
    """

    out: Path
    max_mib: float = 16.0
    max_files: int = 8
    there: list[Path] = field(default_factory=list)

    def take_in(self, store: Store) -> list[Run]:
        """Import what is there, since it will be replaced: its runs. XNetsError if a run of it would be lost."""
        self.there = files_of_packings(self.out)
        taken = import_bundles(store, self.there) if self.there else Imported()
        if lost := [*taken.conflicts, *taken.held]:
            raise XNetsError(f"{self.out} would lose what it has of a run, so name another folder. {lost[0]}")
        return taken.runs

    def check_room(self, store: Store, brought: list[Run], wanted: list[Run], packed: list[Run]) -> None:
        """Raise XNetsError if a run that was brought is not wanted, or has no room in the next packing."""
        if others := [run for run in brought if run not in wanted]:
            raise XNetsError(
                f"{self.out} has bundles with {others[0].label}, which this list has not, or not its data: name "
                "another folder."
            )
        left_out = without_room(store, packed, self.max_mib, self.max_files)
        if lost := [run for run in brought if run in left_out and store.failure(run) is None]:
            raise XNetsError(f"{self.out} would lose what it has of a run. {left_out[lost[0]]}")

    def pack(self, store: Store, runs: list[Run], live: bool) -> Exported:
        """Put bundles of everything there is, campaign-<number of the packing>-1.tar, ..., in the place of the last."""
        with folder_in(self.out) as room:
            target = Path(room) / next_packing(self.out)
            for attempt in range(3):
                try:
                    done = export_runs(
                        store, target, in_order(store, runs), unfinished=True, max_mib=self.max_mib,
                        max_files=self.max_files, live=live,
                    )  # fmt: skip
                except NothingToExport as error:
                    return Exported(left_out=error.left_out)
                except XNetsError:
                    if not live or attempt == 2:  # a checkpoint replaced while it was read is there again at once
                        raise
                else:
                    break
            done.files = self.there = put_in_place(done.files, self.out, older=self.there)
        return done


def run_slice(settings: Settings, entries: list[Entry], minutes: float, folder: Folder, say: Say) -> Slice:
    """Train down the list until the minutes are nearly over, then pack what was finished and the checkpoints.

    Data that are not prepared are prepared first, and bundles in the folder are taken in. Meanwhile it is packed anew
    with each checkpoint, and no run is begun whose checkpoint it would have no room for, so that a slice that is killed
    loses at most one interval. SIGTERM ends it early, as the end of its time does.

    Args:
        settings: store, data, workers and kernel, as in params.yaml.
        entries: of read_campaign.
        minutes: of all of it.
        folder: for the bundles.
        say: told of each event in words.

    Raises:
        XNetsError: no data, bundles in the folder of another list, or damaged, or without room in the next ones, a run
            that fits into no files, another process at the store or the folder, a full disk.
    """
    deadline = time.monotonic() + 60 * minutes - RESERVE
    with folder_in(folder.out):  # one that takes no bundles is better known now than after all the minutes
        pass
    with held_alone(folder.out):
        return _run_slice(settings, entries, deadline, folder, say)


def _run_slice(settings: Settings, entries: list[Entry], deadline: float, folder: Folder, say: Say) -> Slice:
    store, plans = Store(settings.store), plans_of(settings, entries)
    brought = folder.take_in(store)
    missing = prepare(settings, plans, entries, say)
    wanted = [run for runs in campaign_runs(plans, entries, without=missing).values() for run in runs]
    if not wanted:
        raise XNetsError("The campaign has no run whose data are here: name them under data.sources in params.yaml.")
    published = published_runs(entries)
    here = [run for run in wanted if run not in published or store.has("train", run)]
    folder.check_room(store, brought, wanted, here)
    left = [run for run in here if not (store.has("train", run) and store.has("evaluate", run))]
    runs = in_order(store, [run for run in left if run not in published])
    if not runs:  # packed all the same: a slice that was killed at its very end may not have come to it
        say(f"all {len(wanted)} runs of the campaign whose data are here are finished")
        return Slice({}, folder.pack(store, here, live=False), nothing_left=True)

    first, reason = next_with_room(store, runs, [], here, folder.max_mib, folder.max_files)
    if first is None:
        raise XNetsError(f"No run can be trained whose checkpoint would be lost. {reason}")
    say(f"{len(wanted) - len(runs)} of {len(wanted)} runs are finished; training the next ones")
    told: set[str] = set()

    def choose(waiting: list[Run], under_way: list[Run]) -> Run | None:
        run, reason = next_with_room(store, waiting, under_way, here, folder.max_mib, folder.max_files)
        if reason and waiting[0].label not in told:
            told.add(waiting[0].label)
            say(f"passed over for now: {reason}")
        return run

    ended = threading.Event()

    def on_event(kind: str, run: Run | None, content: Any) -> None:
        if kind == "start":  # not before: a run that a slice does not come to has still failed in the next
            store.forget_failure(run)
        if kind == "failed" and content == STOPPED:
            kind = "stopped"
        if kind == "epoch":
            content = f"epoch {content['epoch'] + 1} of {run.protocol.epochs}, test {content['test_top1']:.2f} %"
        say(" ".join(filter(None, (kind, run.label if run else "", content))))

    def stop(*_: Any) -> None:
        ended.set()
        stop_workers()

    def pack_live() -> None:
        folder.pack(store, here, live=True)

    failed: dict[Run, str] = {}
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with store.lock(), _timer(deadline - time.monotonic(), stop), _packed_anew(store, here, pack_live, say):
            clear_folders_in(folder.out)
            devices = devices_here(settings, len(runs))
            failed = run_in_pool(("train", "evaluate"), runs, settings, on_event, ended.is_set, devices, choose)
    finally:
        signal.signal(signal.SIGTERM, before)
        packed = folder.pack(store, here, live=False)
    return Slice(failed, packed)


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
def _packed_anew(store: Store, runs: list[Run], pack: Callable[[], Any], say: Say) -> Iterator[None]:
    """Call pack() in the background whenever there is a new checkpoint or result.

    One that fails is tried again, and the first that does is said: what is lost at a kill has then no bound.
    """
    ended, begun = threading.Event(), _files_of(store, runs)

    def work() -> None:
        before, failed = begun, False
        while not ended.wait(LOOK_EVERY):
            now = _files_of(store, runs)
            if now != before:
                try:
                    pack()
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
