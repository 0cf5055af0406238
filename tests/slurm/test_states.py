"""What each run is at, from a made-up store and made-up answers of SLURM."""

import json
import time

import pytest

from slurm.ends import Inquiry
from slurm.packs import Pack
from slurm.preset import Shape
from slurm.records import last_placements, new_submission, numbered, only_numbered, read_submissions
from slurm.states import SUBMITTING, State, run_states
from tests.slurm.fakes import NAME, job, record


@pytest.fixture
def asked(monkeypatch):
    """The jobs that SLURM was asked about: (id, name)."""
    found = []

    def why_ended(inquiry, id, name):
        found.append((id, name))
        return f"job {id} fell over"

    monkeypatch.setattr(Inquiry, "why_ended", why_ended)
    return found


def note_attempts(store, run, *lines):
    store.folder(run).mkdir(parents=True, exist_ok=True)
    (store.folder(run) / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def look(store, runs, jobs, **options):
    return run_states(runs, store, last_placements(read_submissions(store)), jobs, **options)


def test_nothing_was_submitted(store, runs, asked):
    assert look(store, runs, {}) == dict.fromkeys(runs, State("missing"))
    assert not asked


def test_done_goes_before_failed_and_failed_before_live(store, runs, asked):
    done, failed, live = runs
    record(store, [[run] for run in runs])
    store.write_result(done, {})
    store.write_failure(done, "long ago")
    store.write_failure(failed, "it diverged")
    note_attempts(store, live, {"began": "", "slurm_job": "7_2"})
    states = look(store, runs, {(NAME, i): job(index=i) for i in range(3)})
    assert states == {
        done: State("done"),
        failed: State("failed", why="it diverged"),
        live: State("running", "7_2", "n1"),
    }
    assert not asked


@pytest.mark.parametrize(
    ("attempts", "kind"),
    [
        ([], "queued"),
        ([{"began": "", "slurm_job": "7_0"}], "running"),
        ([{"began": "", "slurm_job": "7_0"}, {"ended": "", "how": "stopped"}], "queued"),
        ([{"began": "", "slurm_job": "3_0"}], "queued"),  # killed in an earlier job
        ([{"began": "", "slurm_job": "3_0"}, {"began": "", "slurm_job": "7_0"}], "running"),
    ],
)
def test_a_run_of_a_running_job_runs_when_its_attempt_does(store, runs, attempts, kind):
    record(store, [runs])
    note_attempts(store, runs[1], *attempts)
    state = look(store, runs, {(NAME, 0): job()})[runs[1]]
    assert (state.kind, state.job) == (kind, "7_0")
    assert state.why == ("n1" if kind == "running" else "its job is at another run")


def test_a_job_that_waits(store, runs):
    record(store, [runs])
    note_attempts(store, runs[0], {"began": "", "slurm_job": "7_0"})  # its node was lost: it is requeued
    states = look(store, runs, {(NAME, 0): job(state="PENDING", why="Priority")})
    assert states == dict.fromkeys(runs, State("queued", "7_0", "Priority"))


def test_why_a_job_ended_is_asked_once_and_kept(store, runs, asked):
    record(store, [runs[:2], runs[2:]])
    fell = State("failed", why="job 7_0 fell over")
    assert look(store, runs[:2], {}) == dict.fromkeys(runs[:2], fell)
    assert look(store, runs[:2], {}) == dict.fromkeys(runs[:2], fell)
    assert set(asked) == {("7_0", NAME)}
    assert store.failure(runs[1]) == "job 7_0 fell over"
    assert store.failure(runs[2]) is None


def test_nothing_is_kept_of_a_look_in_passing(store, runs, asked):
    record(store, [runs])
    assert look(store, runs, {}, keep_failures=False)[runs[0]].kind == "failed"
    assert not asked
    assert store.failure(runs[0]) is None


def test_a_run_that_is_done_while_slurm_answers(store, runs, monkeypatch):
    record(store, [runs])

    def why_ended(inquiry, id, name):
        store.write_result(runs[0], {})
        return "it ended"

    monkeypatch.setattr(Inquiry, "why_ended", why_ended)
    assert look(store, runs[:1], {}) == {runs[0]: State("done")}
    assert store.failure(runs[0]) is None


def test_submitted_but_never_numbered(store, runs, asked):
    record(store, [runs], number=None, created=time.time() - SUBMITTING + 30)
    assert look(store, runs, {})[runs[0]] == State("queued", why="it is being submitted")
    record(store, [runs], number=None, created=time.time() - SUBMITTING - 1)
    record_of_the_first = sorted(store.root.glob("slurm/*/submission.json"))[-1]
    record_of_the_first.unlink()
    assert look(store, runs, {})[runs[0]] == State("missing")
    assert look(store, runs, {(NAME, 0): job()})[runs[0]].job == "7_0", "SLURM took it all the same"
    assert not asked


def test_the_same_number_under_another_name_is_not_ours(store, runs, asked):
    record(store, [runs], number="7")
    stranger = {("xnets-20200101-000000-ffff-0", 0): job(number="7")}
    assert look(store, runs, stranger)[runs[0]].kind == "failed"
    assert set(asked) == {("7", NAME)}


def test_the_last_submission_counts(store, runs, asked):
    record(store, [runs], number="99", created=5.0, name="xnets-20261025-025900-ffff-0")
    record(store, [runs[:1]], number="7", created=6.0, name="xnets-20261025-020100-0000-0")  # the clock went back
    places = last_placements(read_submissions(store))
    assert [places[run.fingerprint].array.number for run in runs] == ["7", "99", "99"]


def test_evaluations_have_a_state_of_their_own(store, runs, asked):
    record(store, [runs])
    for run in runs:
        store.write_result(run, {})
    store.write_evaluation(runs[0], {})
    states = look(store, runs, {(NAME, 0): job()}, task="evaluate")
    assert [states[run].kind for run in runs] == ["done", "queued", "queued"]
    assert {state.kind for state in look(store, runs, {}).values()} == {"done"}


def test_a_record_is_cut_into_arrays_of_one_shape(store, runs):
    one, wide = Shape(), Shape(1, 4)
    packs = [Pack((runs[0],), one), Pack((runs[1],), wide), Pack((runs[2],), one)]
    sweep = new_submission(store, "train", packs, 1, {"code": "here"})
    assert [(array.shape, len(array.packs)) for array in sweep.arrays] == [(one, 1), (one, 1), (wide, 1)]
    assert len({array.name for array in sweep.arrays}) == 3
    assert "submitit==" in (sweep.folder / "environment.txt").read_text()
    sweep = numbered(sweep, sweep.arrays[1].name, "12")
    assert read_submissions(store) == [sweep]
    assert [array.job_id(0) for array in sweep.arrays] == [None, "12", None]
    only_numbered(sweep)
    assert set(last_placements(read_submissions(store))) == {runs[2].fingerprint}


def test_what_slurm_does_not_know_is_told_but_not_kept(store, runs, monkeypatch):
    """The run may have been sent anew since the records were read."""
    record(store, [runs])
    monkeypatch.setattr(Inquiry, "why_ended", lambda inquiry, id, name: None)
    assert look(store, runs, {})[runs[0]] == State("failed", why="its job 7 is gone and SLURM does not know why")
    assert store.failure(runs[0]) is None
