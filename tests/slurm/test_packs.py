"""Packs: every run in exactly one, shared ones within their time, distributed ones alone."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from slurm.packs import make_packs
from slurm.preset import Preset, Shape
from xnets.models import ModelSpec
from xnets.training import Protocol, Run

PROTOCOL = Protocol(2, 100, 0.05, "cifar", "none", 1e-4, 2)
RUN = Run(ModelSpec("MobileNet-0.5", 10), "digits", "0" * 64, PROTOCOL, 0, 0)
WIDE = Shape(2, 4)

lengths = st.lists(
    st.tuples(
        st.sampled_from(["digits", "cifar10", "imagenet"]), st.sampled_from([0, 1, 59, 60, 900, 1800, 3600, 9000])
    ),
    max_size=30,
)
presets = st.builds(
    Preset,
    st.just("p"),
    minutes_per_job=st.sampled_from([0, 1, 30, 60, 90.5]),
    runs_at_once=st.integers(1, 4),
    distributed=st.sampled_from([{}, {"imagenet": WIDE}]),
    scratch=st.sampled_from([None, "/scratch"]),
)


def runs_of(lengths):
    runs = [replace(RUN, dataset=dataset, graph_seed=i, train_seed=i) for i, (dataset, _) in enumerate(lengths)]
    return runs, dict(zip(runs, (seconds for _, seconds in lengths), strict=True))


def time_in_pool(runs, workers, seconds):
    """When a pool that takes them in order has done them."""
    free_at = [0] * workers
    for run in runs:
        free_at[free_at.index(min(free_at))] += seconds[run]
    return max(free_at)


@given(lengths, presets)
def test_every_run_is_in_one_pack_of_its_shape(lengths, preset):
    runs, seconds = runs_of(lengths)
    packs = make_packs(runs, preset, seconds.__getitem__)
    assert sorted(run.train_seed for pack in packs for run in pack.runs) == list(range(len(runs)))
    for pack in packs:
        assert {preset.shape(run.dataset) for run in pack.runs} == {pack.shape}
        assert pack.shape.processes == 1 or len(pack.runs) == 1


@given(lengths, presets)
def test_shared_packs_stay_within_their_time(lengths, preset):
    runs, seconds = runs_of(lengths)
    for pack in make_packs(runs, preset, seconds.__getitem__):
        if len(pack.runs) > 1:
            assert time_in_pool(pack.runs, preset.runs_at_once, seconds) <= 60 * preset.minutes_per_job
            assert preset.minutes_per_job > 0
            assert preset.scratch is None or len({run.dataset for run in pack.runs}) == 1


@given(lengths, presets)
def test_the_longest_packs_come_first(lengths, preset):
    runs, seconds = runs_of(lengths)
    totals = [sum(map(seconds.__getitem__, pack.runs)) for pack in make_packs(runs, preset, seconds.__getitem__)]
    assert totals == sorted(totals, reverse=True)


def test_small_runs_do_share_a_job():
    runs, seconds = runs_of([("digits", 600)] * 12)
    packs = make_packs(runs, Preset("p", minutes_per_job=60), seconds.__getitem__)
    assert [len(pack.runs) for pack in packs] == [6, 6]
    packs = make_packs(runs, Preset("p", minutes_per_job=60, runs_at_once=2), seconds.__getitem__)
    assert [len(pack.runs) for pack in packs] == [12]


def test_what_fits_on_average_may_not_fit():
    runs, seconds = runs_of([("digits", 60 * minutes) for minutes in (50, 40, 30)])
    packs = make_packs(runs, Preset("p", minutes_per_job=60, runs_at_once=2), seconds.__getitem__)
    assert [len(pack.runs) for pack in packs] == [2, 1]
