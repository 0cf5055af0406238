"""The figures of studies, on made-up results whose answers are known."""

import json
import warnings

import matplotlib.colors
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_results import planned_runs, write_project

from experiments.plan import make_plan
from experiments.results import graph_file, read_results
from experiments.settings import read_settings
from experiments.studies import read_studies
from experiments.variance import split_variance
from paper_figures.__main__ import main
from paper_figures.drawing import NO_REPRODUCTION, STYLE
from paper_figures.studies import comparison, compression, connectivity, stability
from paper_figures.studies.files import write_studies
from paper_figures.studies.frames import study_frame, summary_frame
from xnets.errors import XNetsError
from xnets.files import write_json

GAPS = {"grouped": 0.0, "grouped-shuffled": 0.0, "butterfly": 0.1, "stratified": 0.2, "random": 0.3,
        "matchings": 0.4, "ramanujan": 0.5, "paley": 0.6}  # fmt: skip


def project(folder, scale):
    """A project with all studies on, and graphs whose gaps and reach are made up."""
    write_project(folder, scale, "[connectivity, stability, groups-or-expanders]")
    plan = make_plan(read_settings())
    for run in planned_runs(plan):
        if run.model.parsed.kind == "X":
            gap = GAPS[run.model.graph]
            stack = {"layers": 3, "until_all": 2 if gap else None, "seen": 1.0, "reach": 0.2 + gap / 2}
            record = {"layers": [{"sigma_ratio": 1 - gap}], "stack": stack}
            write_json(graph_file(plan, run.model, run.graph_seed), record)
    return plan.settings


@pytest.fixture
def demo_studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return project(tmp_path, "demo")


@pytest.fixture
def cifar_studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return project(tmp_path, "cifar-short")


def frame_of(settings, name):
    plan = make_plan(settings)
    study = read_studies(settings.scale)[name]
    return study, study_frame(study, plan, read_results(plan))


def set_accuracies(settings, study, value):
    """Let every run of a study have the accuracy value(run)."""
    for cell in make_plan(settings).cells:
        for run in cell.runs(cell.dataset.encode().hex()) if cell.study == study else ():
            path = settings.results / "evaluations" / f"{run.label}.json"
            write_json(path, json.loads(path.read_text()) | {"top1": value(run)})


def words(figure):
    """All that stands on a figure, on one line."""
    texts = [figure.get_suptitle()]
    for axes in figure.axes:
        texts += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel(), *(t.get_text() for t in axes.texts)]
        texts += [label.get_text() for label in axes.get_yticklabels()]
    return " ".join(texts).replace("\n", " ")


def test_accuracy_in_the_order_of_the_gap_is_seen_as_such(demo_studies):
    set_accuracies(demo_studies, "connectivity", lambda run: 50 + 50 * GAPS[run.model.graph] + run.train_seed)
    study, frame = frame_of(demo_studies, "connectivity")
    figure, data = connectivity.draw(study, frame)
    assert list(data["graph"]) == list(GAPS)
    assert data["gap"].to_numpy() == pytest.approx(list(GAPS.values()))
    assert data["mean"].to_numpy() == pytest.approx([51 + 50 * gap for gap in GAPS.values()])
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert (data["high"] - data["mean"]).to_numpy() == pytest.approx([half] * 8)
    assert data["until_all"].isna().tolist() == [True, True] + [False] * 6
    for name, n in (("gap", 8), ("reach", 8), ("gap_connected", 6), ("reach_connected", 6)):
        assert set(data[f"rho_{name}_n"]) == {n}
        assert data[f"rho_{name}"].to_numpy() == pytest.approx(1)
        assert (data[f"rho_{name}_low"] < 0.95).all()
    assert "over 8 graphs" in words(figure)
    assert "over 6 with a gap" in words(figure)
    assert set(GAPS) <= {text.get_text() for text in figure.axes[0].texts}


def test_points_and_bars_are_those_of_the_data(demo_studies):
    study, frame = frame_of(demo_studies, "connectivity")
    figure, data = connectivity.draw(study, frame)
    for axes, x in zip(figure.axes, (data["gap"], 100 * data["reach"]), strict=True):
        (points,) = [line for line in axes.lines if line.get_label() == "X-VGG16-2"]
        assert points.get_xydata() == pytest.approx(np.column_stack([x, data["mean"]]))
        bars = [line.get_ydata() for line in axes.lines if line.get_marker() == "_"]
        assert np.array(bars) == pytest.approx(data[["low", "high"]].to_numpy())


def test_the_variance_that_is_drawn_is_the_one_that_is_split(demo_studies):
    set_accuracies(demo_studies, "stability", lambda run: 80 + 2 * run.graph_seed + (run.train_seed * 7) % 3)
    study, frame = frame_of(demo_studies, "stability")
    figure, data = stability.draw(study, frame)
    table = [[80 + 2 * g + (t * 7) % 3 for t in range(4)] for g in range(4)]
    expected = split_variance(table)
    assert list(data["name"]) == ["graph_seed", "train_seed", "rest"]
    assert data["variance"].to_numpy() == pytest.approx([c.variance for c in expected.components])
    assert data["variance"].iloc[0] == pytest.approx(np.var([0, 2, 4, 6], ddof=1))
    assert data["sd"].to_numpy() ** 2 == pytest.approx(data["variance"].to_numpy(), abs=1e-9)
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written[:16] == [f"{value:.1f}" for row in table for value in row]
    assert f"{100 * expected.graph.share:.0f} % of the variance" in words(figure)


def test_a_study_of_graphs_without_seeds_cannot_be_split(demo_studies):
    study, frame = frame_of(demo_studies, "stability")
    with pytest.raises(XNetsError, match="no graph that its seed changes"):
        stability.draw(study, frame[frame["graph_seed"] == 0])


def test_a_comparison_shows_every_configuration_and_its_reference(cifar_studies):
    study, frame = frame_of(cifar_studies, "groups-or-expanders")
    figure, data = comparison.draw(study, frame)
    assert list(data["label"]) == [
        *(f"X-MobileNet-0.5-{c}, {graph}, {init}" for c in (2, 4, 8, 16)
          for graph in ("random", "grouped", "grouped-shuffled") for init in ("torch", "sparse-aware", "authors")),
        "MobileNet-0.5",
    ]  # fmt: skip
    assert list(data["n"]) == [3] * 37
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(data["label"])
    means = [line.get_xydata()[0] for line in axes.lines if line.get_markersize() == 5 and line.get_marker() in "oD"]
    assert np.array(means) == pytest.approx(np.column_stack([data["mean"], range(37)]))
    assert "proves nothing" not in words(figure), "these are real data"
    assert "few epochs (MobileNet 30, others 10)" in words(figure)
    reference = frame[frame["reference"]]
    assert reference["gap"].isna().all()
    assert data["mean"].iloc[-1] == pytest.approx(reference["top1"].mean())


def test_accuracy_against_compression_shows_what_is_there(cifar_studies):
    """C = 2 is not trained, and of C = 4 one run."""
    study, frame = frame_of(cifar_studies, "groups-or-expanders")
    one = (frame["label"] == "X-MobileNet-0.5-4, random, torch") & (frame["train_seed"] == 0)
    frame = frame[one | ~frame["network"].str.endswith(("-2", "-4"))]
    figure, data = compression.draw(study, frame)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2\n(no run yet)", "4", "8", "16"]
    lines = {line.get_label().split(" (")[0]: line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) == {
        *(f"{graph}, {init}" for graph in study.factors["graph"] for init in study.factors["init"]), "MobileNet-0.5",
    }  # fmt: skip
    for name, points in data[~data["reference"]].groupby("line"):
        points = points.sort_values("compression")
        x, y = lines[name].get_xydata().T
        assert y == pytest.approx(points["mean"].to_numpy())
        assert np.log2(x) == pytest.approx(
            np.log2(points["compression"].to_numpy(dtype=float)), abs=0.4
        )  # nearest its own C
    assert lines["random, torch"].get_ydata()[0] == pytest.approx(frame.loc[one, "top1"].item())
    assert lines["random, torch"].get_label() == "random, torch (1 to 3 runs)"
    bars = np.array([line.get_ydata() for line in axes.lines if line.get_marker() == "_"], dtype=float)
    several = data.loc[~data["reference"] & (data["n"] > 1), ["low", "high"]].to_numpy()
    assert np.sort(bars[~np.isnan(bars[:, 0])], axis=0) == pytest.approx(np.sort(several, axis=0))
    assert "few epochs (MobileNet 30, others 10)" in words(figure)


@pytest.mark.parametrize(("name", "module"), [("connectivity", connectivity), ("stability", stability)])
def test_demo_scale_stands_on_the_face(demo_studies, name, module):
    study, frame = frame_of(demo_studies, name)
    figure, _ = module.draw(study, frame)
    assert "Scale demo: scikit-learn's 8x8 digits" in words(figure)
    assert "proves nothing about the paper" in words(figure)
    assert study.question in words(figure)
    assert matplotlib.colors.to_rgba(NO_REPRODUCTION) in [axes.get_facecolor() for axes in figure.axes]


@pytest.mark.parametrize(("name", "module"), [("connectivity", connectivity), ("stability", stability)])
def test_nothing_leaves_the_figure(demo_studies, name, module):
    study, frame = frame_of(demo_studies, name)
    figure, _ = module.draw(study, frame)
    with matplotlib.style.context(STYLE):
        figure.draw_without_rendering()
    texts = [t for axes in figure.axes for t in (*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label)]
    for text in [*figure.texts, *filter(lambda text: text.get_text(), texts)]:
        box = text.get_window_extent()
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1


def test_all_files_are_there_and_the_same_when_made_again(demo_studies):
    folder = demo_studies.results / "studies"
    folder.mkdir()
    (folder / "old.csv").write_text("of a study that is off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["studies"]) == 0
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    kinds = {f"{name}.{kind}" for name in ("connectivity-connectivity", "stability-stability")
             for kind in ("pdf", "png", "csv")}  # fmt: skip
    assert set(first) == kinds | {"connectivity.csv", "stability.csv", "all.md"}
    assert len(pd.read_csv(folder / "connectivity.csv")) == 24
    assert len(pd.read_csv(folder / "stability.csv")) == 16
    write_studies(demo_studies)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_a_scale_without_studies_leaves_an_empty_page(own):
    write_studies(own)
    assert [path.name for path in (own.results / "studies").iterdir()] == ["all.md"]


def test_a_graph_that_was_not_recorded_is_one_sentence(demo_studies, capsys):
    next((demo_studies.results / "graphs").glob("X-VGG16-2--paley--g1--*")).unlink()
    assert main(["studies"]) == 2
    assert "is missing: run `dvc repro sample`" in capsys.readouterr().err
    assert not (demo_studies.results / "studies").exists()


def test_a_summary_keeps_the_studys_order_and_counts_draws_that_never_join_all(demo_studies):
    study, frame = frame_of(demo_studies, "connectivity")
    one = (frame["label"] == "random") & (frame["graph_seed"] == 1)
    frame.loc[one, "until_all"] = np.nan
    data = summary_frame(frame).set_index("label")
    assert list(data.index) == list(study.factors["graph"])
    assert np.isnan(data.loc["random", "until_all"])
    assert data.loc["paley", "until_all"] == 2
