"""Published runs in tables and figures: beside ours, each scale by itself, and partial where they are partial."""

import pytest
from synthetic_results import planned_runs

from experiments.plan import plan_of
from experiments.published import publish
from experiments.store import Store
from paper_figures import figure4
from paper_figures.tables import build_tables
from tests.made_up import finish


def finished(store, run, top1):
    """Its eighth epoch was the best."""
    finish(store, run, [top1 + (epoch == 7) for epoch in range(run.protocol.epochs)])


@pytest.fixture
def published(own, tmp_path):
    """Three of ten VGG16 and one X-VGG16-2 at the scale cifar, in a project at scale demo."""
    runs = {}
    for run in planned_runs(plan_of(own, "cifar")):
        runs.setdefault((run.model.name, run.dataset), []).append(run)
    store = Store(tmp_path / "store")
    some = runs["VGG16", "cifar10"][:3]
    for run, top1 in zip(some, (93.0, 94.0, 95.0), strict=True):
        finished(store, run, top1)
    finished(store, runs["X-VGG16-2", "cifar10"][0], 92.5)
    publish(store, [*some, runs["X-VGG16-2", "cifar10"][0]], tmp_path / "published" / "cifar")
    return own


def test_published_runs_have_columns_of_their_own(published):
    tables = {table.number: table for table in build_tables(published)}
    for number, rows in ((2, {"VGG16-Orig": "VGG16", "X-VGG16-2": "X-VGG16-2"}), (4, {"VGG": "", "X-VGG-2": ""})):
        table = tables[number]
        shown = {c.name: c.cells for c in table.columns if c.group == "published (cifar)"}
        assert list(shown) == ["last epoch, % (runs of those wanted)", "best epoch, %"]
        last, best = shown.values()
        place = list(table.data["row"])
        dense, sparse = (place.index(row) for row in rows)
        assert last[dense] == "94.00 ± 1.00 [91.52, 96.48] (3 of 10)"
        assert last[sparse] == "92.50 (1 of 10)"
        assert best[dense] == "95.00", "the best epoch is picked on the test set"
        assert {last[i] for i in range(len(last)) if i not in (dense, sparse)} == {"–"}
        assert any(remark.startswith("published (cifar): ") for remark in table.remarks)
    for number in (1, 3, 5):
        assert not any("published" in c.group for c in tables[number].columns), "no column without a run"


def test_without_published_runs_tables_are_as_before(own):
    assert not any("published" in c.group for table in build_tables(own) for c in table.columns)


def test_published_runs_are_hollow_points_in_figures(own, tmp_path):
    """Of Fig. 4: two runs of one network and one of another, at the scale cifar."""
    runs = {}
    for run in planned_runs(plan_of(own, "cifar")):
        runs.setdefault((run.model.name, run.dataset), []).append(run)
    store = Store(tmp_path / "store")
    some = [*runs["X-DenseNet-BC-2-40-24", "cifar10"][:2], runs["DenseNet-BC-40-24", "cifar10"][0]]
    for run, top1 in zip(some, (94.0, 95.0, 95.5), strict=True):
        finished(store, run, top1)
    before, _ = figure4.draw(own)
    publish(store, some, tmp_path / "published" / "cifar")
    figure, data = figure4.draw(own)
    points = data[data["panel"] == "published cifar"].set_index("model")
    assert dict(points["top1"]) == {"X-DenseNet-BC-2-40-24": 94.5, "DenseNet-BC-40-24": 95.5}
    assert dict(points["n"]) == {"X-DenseNet-BC-2-40-24": 2, "DenseNet-BC-40-24": 1}

    def hollow(drawn):
        return [line for axes in drawn.axes for line in axes.lines if line.get_markerfacecolor() == "white"]

    assert len(hollow(before)) == 0
    assert sorted(float(line.get_ydata()[0]) for line in hollow(figure)) == [4.5, 5.5]
    left = figure.axes[0]
    assert "Hollow: trained here, scale cifar, last epoch, n = 1 to 2" in left.get_title(loc="left")
    assert "Hollow" not in figure.axes[2].get_title(loc="left"), "nothing of CIFAR-100 is published"


def test_published_runs_far_from_the_authors_are_in_sight_and_scales_are_told_apart(own, tmp_path):
    store = Store(tmp_path / "store")
    for scale, top1 in (("cifar", 95.5), ("cifar-short", 71.0)):
        runs = planned_runs(plan_of(own, scale))
        (run,) = [r for r in runs if (r.model.name, r.dataset, r.train_seed) == ("DenseNet-BC-40-24", "cifar10", 0)]
        finished(store, run, top1)
        publish(store, [run], tmp_path / "published" / scale)
    figure, _ = figure4.draw(own)
    left = figure.axes[0]
    hollow = {
        float(line.get_ydata()[0]): line.get_markersize()
        for line in left.lines
        if line.get_markerfacecolor() == "white"
    }
    assert set(hollow) == {4.5, 29.0}
    assert hollow[29.0] < hollow[4.5]
    low, high = left.get_ylim()
    assert low < 4.5 < 29.0 < high
    assert "trained here, scale cifar, smaller: cifar-short" in left.get_title(loc="left")
