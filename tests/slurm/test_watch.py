"""The executor "slurm" while it waits: made-up stores and jobs, and what it tells of them."""

import json

import pytest

from experiments.store import Store
from slurm import executor
from slurm.ends import Inquiry
from slurm.executor import LOOKS, Watch
from slurm.queue import NoAnswer
from slurm.records import last_placements, read_submissions
from slurm.states import SUBMITTING
from tests.slurm.fakes import NAME, job, record

LIVE = {(NAME, 0): job()}


class Waiting:
    """A Watch and what it has told."""

    def __init__(self, settings, runs, task="train"):
        self.events = []
        self.watch = Watch(task, runs, settings, lambda *event: self.events.append(event))
        self.store = self.watch.store

    def look(self, jobs):
        """The events of one look, the counts of what is under way left out."""
        before = len(self.events)
        self.watch.look(last_placements(read_submissions(self.store)), jobs)
        return [event for event in self.events[before:] if event[0] not in ("where", "note")]


@pytest.fixture
def waiting(tiny, runs, monkeypatch):
    """All runs in one job of a sweep."""
    monkeypatch.setattr(Inquiry, "why_ended", lambda inquiry, id, name: f"job {id} fell over")
    record(Store(tiny.store), [runs])
    return Waiting(tiny, runs)


def write_epochs(store, run, n):
    store.folder(run).mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"epoch": i, "test_top1": 10.0 * i}) + "\n" for i in range(n)]
    (store.folder(run) / "history.jsonl").write_text("".join(lines))


def test_epochs_are_told_once_each(waiting, runs):
    told = []
    for n in (0, 1, 1, 3, 3, 0, 1):  # it was requeued in the end, and starts again
        write_epochs(waiting.store, runs[0], n)
        told.append([record["epoch"] for kind, run, record in waiting.look(LIVE) if kind == "epoch" and run == runs[0]])
    assert told == [[], [0], [], [2], [], [], [0]]


def test_done_and_failed_are_told_once(waiting, runs):
    write_epochs(waiting.store, runs[0], 2)
    waiting.store.write_result(runs[0], {})
    waiting.store.write_failure(runs[1], "it diverged")
    assert [event[:2] for event in waiting.look(LIVE)] == [("epoch", runs[0]), ("done", runs[0]), ("failed", runs[1])]
    assert waiting.look(LIVE) == []
    assert waiting.watch.failed == {runs[1]: "it diverged"}
    assert waiting.watch.waiting == [runs[2]]
    assert waiting.events[-1] == ("where", None, "0 running, 1 queued (its job is at another run)")


def test_a_run_fails_after_looks_in_a_row_without_its_job(waiting, runs):
    for _ in range(2):  # a requeue: it comes back in time, and the count begins anew
        for _ in range(LOOKS - 1):
            assert waiting.look({}) == []
        assert waiting.look(LIVE) == []
    for _ in range(LOOKS - 1):
        assert waiting.look({}) == []
    assert waiting.look({}) == [("failed", run, "job 7 fell over") for run in runs]
    assert waiting.watch.waiting == []


def test_silence_of_slurm_never_fails_a_run(waiting, runs):
    for _ in range(LOOKS - 1):
        waiting.look({})
    for _ in range(3 * LOOKS):
        assert waiting.look(None) == []
    waiting.store.write_result(runs[0], {})
    assert waiting.look(None) == [("done", runs[0], None)]
    assert len(waiting.look({})) == 2


def test_a_run_that_is_done_while_slurm_is_asked_why(waiting, runs, monkeypatch):
    def why_ended(inquiry, id, name):
        waiting.store.write_result(runs[0], {})
        return "job 7 fell over"

    monkeypatch.setattr(Inquiry, "why_ended", why_ended)
    told = [event for _ in range(LOOKS) for event in waiting.look({})]
    assert told == [("done", runs[0], None), *(("failed", run, "job 7 fell over") for run in runs[1:])]


def test_a_submission_that_was_interrupted_a_moment_ago_is_waited_for(tiny, runs, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    record(Store(tiny.store), [runs], number=None, created=995.0)
    waiting = Waiting(tiny, runs)
    for _ in range(3 * LOOKS):
        assert waiting.look({}) == []
    now[0] += SUBMITTING
    assert waiting.look({}) == [("failed", run, "its job ended without leaving this") for run in runs]


def test_evaluations_are_waited_for_on_their_own(waiting, tiny, runs):
    waiting = Waiting(tiny, runs, "evaluate")
    for run in runs:
        waiting.store.write_result(run, {})
    assert waiting.look(LIVE) == []
    waiting.store.write_evaluation(runs[1], {})
    assert waiting.look(LIVE) == [("done", runs[1], None)]
    told = [event for _ in range(LOOKS) for event in waiting.look({})]
    assert told == [("failed", run, "job 7 fell over") for run in (runs[0], runs[2])]


def test_it_waits_until_all_is_settled_and_tells_silence_once(waiting, runs, monkeypatch):
    answers = iter([LIVE, None, None, LIVE, None, LIVE])

    def live_jobs():
        answer = next(answers)
        if answer is None:
            raise NoAnswer("SLURM's squeue failed.")
        return answer

    def sleep(seconds):
        assert seconds == 0.5
        naps.append(seconds)
        if len(naps) == 5:
            for run in runs:
                waiting.store.write_result(run, {})

    naps = []
    monkeypatch.setattr(executor, "live_jobs", live_jobs)
    monkeypatch.setattr("time.sleep", sleep)
    assert waiting.watch.wait(0.5) == {}
    said = [content for kind, _, content in waiting.events if kind == "note"]
    assert said == ["SLURM's squeue failed. The jobs go on; it is asked again."] * 2
    assert len(naps) == 5
