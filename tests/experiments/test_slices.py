"""A slice of a campaign: its end in time, what a kill costs, the bundles in its folder, and going on elsewhere."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import campaign as campaign_module
from experiments import slices
from experiments.bundles.exporting import export_runs
from experiments.bundles.importing import import_bundles
from experiments.bundles.packings import held_alone
from experiments.campaign import campaign_runs, plans_of
from experiments.carried import checkpoint_size
from experiments.plan import make_plan
from experiments.published import publish
from experiments.slices import Folder, run_slice
from experiments.store import Store
from tests import made_up
from tests.experiments.bundles.conftest import begin
from tests.experiments.conftest import ENTRIES
from tests.waiting import wait_for
from xnets.errors import XNetsError
from xnets.training.checkpoint import checkpoint_position


def test_a_slice_finishes_and_packs_and_a_next_one_has_nothing_left(campaign, tmp_path):
    said = []
    done = run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), said.append)
    assert not done.failed
    assert (done.packed.finished, done.packed.under_way, done.packed.left_out) == (6, 0, [])
    assert said[0] == "0 of 6 runs are finished; training the next ones"
    assert sum(line.startswith("done ") for line in said) == 6
    elsewhere = Store(tmp_path / "elsewhere")
    assert len(import_bundles(elsewhere, done.packed.files).new) == 6
    assert import_bundles(elsewhere, done.packed.files).new == [], "importing twice changes nothing"
    again = run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), said.append)
    assert (again.nothing_left, again.packed.finished, done.nothing_left) == (True, 6, False)


def test_what_is_published_is_not_trained_again(campaign, tmp_path):
    run_slice(campaign, ENTRIES[:1], 10, Folder(tmp_path / "out"), lambda line: None)
    wanted = [run for runs in campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).values() for run in runs]
    publish(Store(campaign.store), wanted[:1], Path("published/tiny"), dirty=True)
    said = []
    elsewhere = replace(campaign, store=tmp_path / "elsewhere")
    done = run_slice(elsewhere, ENTRIES, 10, Folder(tmp_path / "other"), said.append)
    assert said[0] == "1 of 6 runs are finished; training the next ones"
    assert done.packed.finished == 5
    assert not Store(elsewhere.store).is_done(wanted[0])


@pytest.fixture
def until(monkeypatch):
    """until(3): a `say` that ends the slice's time at its third epoch, however long that takes; lines, and the seconds
    that the slice would have had, are kept."""
    asked, up = [], []

    @contextlib.contextmanager
    def timer(seconds, call):
        asked.append(seconds)
        up.append(call)
        yield

    def until_epoch(count):
        def say(line):
            lines.append(line)
            if sum(line.startswith("epoch ") for line in lines) == count:
                up[-1]()

        lines = []
        say.lines, say.asked = lines, asked
        return say

    monkeypatch.setattr(slices, "_timer", timer)
    return until_epoch


def test_out_of_time_it_packs_checkpoints_and_goes_on_elsewhere(campaign, tmp_path, monkeypatch, until):
    """Two stores, as on two machines that are ours for a moment: the run ends as it would have in one go."""
    slow = replace(make_plan(campaign).cells[0].protocol, epochs=2000)
    monkeypatch.setattr(
        campaign_module, "plan_of",
        lambda settings, scale: replace(
            plan := make_plan(settings), cells=tuple(replace(cell, protocol=slow) for cell in plan.cells)
        ),
    )  # fmt: skip
    entries, say = [replace(ENTRIES[0], seeds=1)], until(3)
    first = run_slice(campaign, entries, 10, Folder(tmp_path / "out"), say)
    assert 0 < say.asked[0] <= 10 * 60 - slices.RESERVE
    assert (first.packed.finished, first.packed.under_way) == (0, 1)
    ((run, reason),) = first.failed.items()
    assert say.lines[-1] == f"stopped {run.label} {reason}"
    assert "goes on from its checkpoint" in reason
    epochs = len(Store(campaign.store).history(run))
    assert 3 <= epochs < 2000

    other = replace(campaign, store=tmp_path / "other")
    import_bundles(Store(other.store), first.packed.files)
    say = until(epochs + 3)  # those it has already are told again
    run_slice(other, entries, 10, Folder(tmp_path / "out2"), say)
    resumed = [line for line in say.lines if line.startswith("epoch ")]
    assert len(Store(other.store).history(run)) >= epochs + 3, "it went on"
    assert Store(other.store).history(run)[:epochs] == Store(campaign.store).history(run)[:epochs]
    assert f"epoch {epochs + 1} of 2000" in " ".join(resumed)


def test_a_slices_time_is_up_by_itself(campaign, tmp_path, monkeypatch):
    """With its own timer: whoever trains is asked to stop."""
    stopped = []
    monkeypatch.setattr(slices, "run_in_pool", lambda *given: wait_for(given[4], 60) and {})
    monkeypatch.setattr(slices, "stop_workers", lambda: stopped.append(True))
    monkeypatch.setattr(slices, "RESERVE", 59)
    done = run_slice(campaign, ENTRIES, 1, Folder(tmp_path / "out"), lambda line: None)
    assert (done.failed, done.packed.files, done.nothing_left) == ({}, [], False)
    wait_for(lambda: stopped, 60)


def test_packing_that_fails_meanwhile_is_said_once_and_goes_on(store, run, monkeypatch):
    tried, said = [], []

    def pack():
        tried.append(True)
        if len(tried) <= 3:
            raise XNetsError("the disk is full")

    monkeypatch.setattr(slices, "LOOK_EVERY", 0.01)
    with slices._packed_anew(store, [run], pack, said.append):
        wait_for(lambda: made_up.finish(store, run, 50.0) or len(tried) >= 4, 60)  # there is something new each time
    assert said == ["packing failed and is tried again every 0.01 seconds: the disk is full"]


def test_bundles_that_are_there_are_taken_in_before_they_are_replaced(campaign, tmp_path):
    run_slice(campaign, ENTRIES[:1], 10, Folder(tmp_path / "out"), lambda line: None)
    elsewhere, said = replace(campaign, store=tmp_path / "elsewhere"), []
    assert run_slice(elsewhere, ENTRIES, 10, Folder(tmp_path / "out"), said.append).packed.finished == 6
    there = {json.loads(path.read_text())["fingerprint"] for path in elsewhere.store.glob("*/result.json")}
    assert len(there) == 6
    assert any("of 6 runs are finished; training the next ones" in line and not line.startswith("0") for line in said)


def test_a_further_checkpoint_there_goes_on(campaign, tmp_path, monkeypatch):
    """The store's own is an older one, of before the machine that kept nothing."""
    monkeypatch.setattr(slices, "run_in_pool", lambda *_: {})
    run = next(iter(campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).popitem()[1]))
    far, near = (replace(campaign, store=tmp_path / name) for name in ("far", "near"))
    for settings, epoch in ((far, 5), (near, 2)):
        begin(Store(settings.store), run, epoch, step=0)
    run_slice(far, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    run_slice(near, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    assert checkpoint_position(Store(near.store).folder(run) / "checkpoint.pt")[0] == 5


def test_bundles_of_another_list_are_not_replaced(campaign, tmp_path):
    """On a machine that keeps nothing else, to replace them by this list's packing would lose them."""
    run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(XNetsError, match=r"has bundles with .*, which this list has not, or not its data: name"):
        run_slice(campaign, ENTRIES[:1], 10, Folder(tmp_path / "out"), lambda line: None)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_another_result_there_is_not_replaced(campaign, tmp_path):
    run = next(iter(campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).popitem()[1]))
    for name, top1 in (("here", 50.0), ("there", 60.0)):
        made_up.finish(Store(tmp_path / name), run, top1)
    export_runs(Store(tmp_path / "there"), tmp_path / "out" / "campaign-1.tar", [run])
    says = r"out would lose what it has of a run, so name another folder\. .*: here top-1 50\.00 %.*is kept\.$"
    with pytest.raises(XNetsError, match=says):
        run_slice(replace(campaign, store=tmp_path / "here"), ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)


def test_a_run_that_another_process_holds_is_not_replaced(campaign, tmp_path):
    """Its bundle cannot be taken in."""
    run = next(iter(campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).popitem()[1]))
    here = replace(campaign, store=tmp_path / "here")
    made_up.finish(Store(tmp_path / "there"), run, 50.0)
    (file,) = export_runs(Store(tmp_path / "there"), tmp_path / "out" / "campaign-1-1.tar", [run]).files
    before = file.read_bytes()
    says = r"so name another folder\. .*: a process is training or evaluating it"
    with Store(here.store).working_on(run), pytest.raises(XNetsError, match=says):
        run_slice(here, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    assert file.read_bytes() == before


def runs_of(entries, settings):
    return [run for runs in campaign_runs(plans_of(settings, entries), entries).values() for run in runs]


def test_a_run_that_would_be_lost_is_not_trained(campaign, tmp_path):
    says = r"No run can be trained whose checkpoint would be lost\. .*: 1 files of 0\.001 MiB have no room left for it"
    with pytest.raises(XNetsError, match=says):
        run_slice(campaign, ENTRIES[:1], 10, Folder(tmp_path / "out", 0.001, 1), lambda line: None)
    assert not list(Path(campaign.store).glob("*/history.jsonl"))


def test_runs_whose_checkpoints_have_no_room_beside_one_another_are_trained_in_turn(campaign, tmp_path, monkeypatch):
    """By two workers; the one that waits is told once, and goes on when there is room."""
    sizes = [checkpoint_size(run) for run in runs_of(ENTRIES, campaign)]
    mib = 1.3 * max(sizes) / 2**20
    said, under_way = [], set()

    def say(line):
        said.append(line)
        kind, _, label = line.partition(" ")
        if kind == "start":
            under_way.add(label)
            assert len(under_way) == 1, "the checkpoints of two have no room"
        elif kind in ("done", "failed"):
            under_way.discard(label)

    two_workers = replace(campaign, local=replace(campaign.local, workers=2))
    done = run_slice(two_workers, ENTRIES, 10, Folder(tmp_path / "out", mib, 1), say)
    assert (done.failed, done.packed.finished, done.packed.left_out) == ({}, 6, [])
    waited = [line for line in said if line.startswith("passed over for now: ")]
    assert waited
    assert len(set(waited)) == len(waited)
    assert "say --max-files 2 or more" in waited[0]


def test_a_folder_with_more_than_the_next_files_hold_is_refused(campaign, tmp_path):
    first, second = runs_of(ENTRIES, campaign)[:2]
    for run in (first, second):
        begin(Store(campaign.store), run, 1, 0, padding=os.urandom(2**20))
    out, half = Folder(tmp_path / "out", 1.2, 2), Folder(tmp_path / "out", 1.2, 1)
    export_runs(
        Store(campaign.store), out.out / "campaign-1.tar", [first, second], unfinished=True, max_mib=1.2, max_files=2
    )
    before = {path: path.read_bytes() for path in out.out.iterdir()}
    assert len(before) == 2
    says = r"out would lose what it has of a run\. .*: 1 files of 1\.2 MiB have no room left for it: say --max-files 2"
    with pytest.raises(XNetsError, match=says):
        run_slice(replace(campaign, store=tmp_path / "bare"), ENTRIES, 10, half, lambda line: None)
    assert {path: path.read_bytes() for path in out.out.iterdir()} == before


def test_what_somebody_puts_into_the_folder_meanwhile_stays(campaign, tmp_path, monkeypatch):
    run, other = runs_of(ENTRIES, campaign)[:2]
    begin(Store(campaign.store), run, 1, step=0)
    begin(Store(tmp_path / "other"), other, 2, step=0)

    def meanwhile(*_):
        export_runs(Store(tmp_path / "other"), tmp_path / "out" / "campaign-7-1.tar", [other], unfinished=True)

    monkeypatch.setattr(slices, "run_in_pool", lambda *_: meanwhile() or {})
    done = run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    assert [path.name for path in done.packed.files] == ["campaign-8-1.tar"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["campaign-7-1.tar", "campaign-8-1.tar"]
    there = Store(tmp_path / "there")
    assert len(import_bundles(there, list((tmp_path / "out").iterdir())).under_way) == 2


def test_a_second_slice_at_the_same_folder_is_refused(campaign, tmp_path):
    (tmp_path / "out").mkdir()
    with held_alone(tmp_path / "out"), pytest.raises(XNetsError, match=r"Another slice packs into .*out: name another"):
        run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    run_slice(campaign, ENTRIES[:1], 10, Folder(tmp_path / "out"), lambda line: None)


def test_entries_without_their_data_are_passed_over(campaign, tmp_path, monkeypatch):
    def refuse(*_):
        raise XNetsError("there is no such folder")

    monkeypatch.setattr(slices, "ready_data", refuse)
    said = []
    with pytest.raises(XNetsError, match=r"no run whose data are here: name them under data\.sources"):
        run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), said.append)
    assert said == ["digits: passed over. there is no such folder"]


def test_a_folder_that_takes_no_bundles_is_refused_before_the_minutes_are_spent(campaign, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(XNetsError, match=r"Cannot write to .*out .*: free space or make it writable"):
        run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    assert not campaign.store.exists()


def test_a_run_that_failed_is_tried_again_after_all_others(campaign, tmp_path):
    run_slice(
        campaign, [replace(ENTRIES[0], seeds=1)], 10, Folder(tmp_path / "out"), lambda line: None
    )  # prepares the data
    first, second = [run for runs in campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).values() for run in runs][1:3]
    Store(campaign.store).write_failure(first, "it diverged")
    said = []
    one_worker = replace(campaign, local=replace(campaign.local, workers=1))
    run_slice(one_worker, ENTRIES, 10, Folder(tmp_path / "out"), said.append)
    begun = [line.removeprefix("start ") for line in said if line.startswith("start ")]
    assert begun[0] == second.label
    assert begun[-1] == first.label
    assert Store(campaign.store).is_done(first)


def test_a_run_that_a_slice_did_not_come_to_has_still_failed(campaign, tmp_path, monkeypatch):
    run_slice(
        campaign, [replace(ENTRIES[0], seeds=1)], 10, Folder(tmp_path / "out"), lambda line: None
    )  # prepares the data
    _, failed, *_ = (run for runs in campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).values() for run in runs)
    Store(campaign.store).write_failure(failed, "it diverged")
    monkeypatch.setattr(slices, "run_in_pool", lambda *_: {})
    run_slice(campaign, ENTRIES, 10, Folder(tmp_path / "out"), lambda line: None)
    assert Store(campaign.store).failure(failed) == "it diverged"


SLICE = """
import sys
from dataclasses import replace
from pathlib import Path
from experiments import campaign, plan, slices
from tests.experiments.conftest import KEPT, TINY
from experiments.settings import LocalSettings, Settings
long = {**TINY, "protocols": {"imagenet-mobilenet": {**TINY["protocols"]["imagenet-mobilenet"], "epochs": 2000}}}
plan.read_scales = campaign.read_scales = lambda: {"tiny": long}
rows = tuple(row for row in plan.read_rows() if row.model in KEPT)
plan.read_rows = lambda: rows
campaign.plan_of = lambda settings, scale: plan.make_plan(settings)
if __name__ == "__main__":
    local = LocalSettings(device="cpu", workers=1, checkpoint_minutes=0.02)
    settings = Settings("tiny", {"table5": 1}, store=Path("store"), data_folder=Path("data"), local=local)
    entries = [campaign.Entry("tiny", ("table5",), ("X-MobileNet-0.5-2",))]
    slices.run_slice(settings, entries, 5, slices.Folder(Path("out")), lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_slice_loses_at_most_a_checkpoint_interval(campaign, tmp_path, number):
    """What lies in `out` then goes on elsewhere; SIGTERM loses nothing but the step it is in."""
    Path("slice.py").write_text(SLICE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    slice_ = subprocess.Popen(
        [sys.executable, "slice.py"], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    out = tmp_path / "out"
    epochs = 0
    for line in slice_.stdout:
        epochs += line.startswith("epoch ")
        if epochs >= 5 and any(out.glob("campaign-*.tar")):
            break
    packed = max(path.stat().st_mtime for path in out.glob("campaign-*.tar"))
    wait_for(lambda: max((path.stat().st_mtime for path in out.glob("campaign-*.tar")), default=packed) > packed, 60)
    started = time.time()
    if number == signal.SIGKILL:
        os.killpg(slice_.pid, number)
    else:
        slice_.send_signal(number)
    slice_.stdout.read()
    code = slice_.wait(60)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    bundles = list(out.glob("campaign-*.tar"))
    there = Store(tmp_path / "there")
    assert len(import_bundles(there, bundles).under_way) == 1
    (folder,) = [path.parent for path in there.root.glob("*/checkpoint.pt")]
    (mine,) = [path.parent for path in Path("store").glob("*/checkpoint.pt")]
    age = started - max(path.stat().st_mtime for path in bundles)
    assert age < 15, "out was packed anew all the while"
    behind = (mine / "checkpoint.pt").stat().st_mtime - max(path.stat().st_mtime for path in bundles)
    assert behind < 15, "with the checkpoint that was the last, or nearly"
    if number == signal.SIGTERM:
        assert (folder / "checkpoint.pt").read_bytes() == (mine / "checkpoint.pt").read_bytes()
    assert all(json.loads(line)["epoch"] == i for i, line in enumerate((folder / "history.jsonl").open()))
