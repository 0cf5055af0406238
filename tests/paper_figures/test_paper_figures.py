"""Figs. 3-6: every point against an independent computation, and what stands on their faces."""

import importlib
import json
import subprocess
import sys
import warnings
from itertools import combinations

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import seaborn
from conftest import accuracies, counts, read_csv
from matplotlib.text import Text
from scipy import stats
from synthetic_results import REPOSITORY

from paper_figures.__main__ import main
from paper_figures.drawing import COLOURS, NO_REPRODUCTION

PAPER = REPOSITORY / "experiments" / "paper"
NUMBERS = (3, 4, 5, 6)
FIGURES = (1, 2, *NUMBERS)
# x of a figure's axis from (parameters, MACs)
UNITS = {
    3: lambda params, macs: macs / 1e6, 4: lambda params, macs: macs / 1e6,
    5: lambda params, macs: 2 * macs / 1e8, 6: lambda params, macs: params / 1e6,
}  # fmt: skip


_DRAWN = {}  # drawing takes a second


def draw(number, settings):
    """The figure and its points at this scale, drawn once; every project folder of a scale holds the same results."""
    if (number, settings.scale) not in _DRAWN:
        module = importlib.import_module(f"paper_figures.figure{number}")
        _DRAWN[number, settings.scale] = module.draw(settings)
    return _DRAWN[number, settings.scale]


def recovered(number: int) -> list[dict[str, str]]:
    """The points of a figure as they were recovered from paper, README and logs."""
    return [line for line in read_csv(PAPER / "figure_points.csv") if line["figure"] == str(number)]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_authors_points_are_the_recovered_ones(demo, number):
    points = draw(number, demo)[1]
    theirs = points[points["panel"] == "authors"].to_dict("records")
    expected = [line for line in recovered(number) if line["y_top1"]]
    assert len(theirs) == len(expected)
    scale = {3: 1, 4: 1, 5: 0.01, 6: 1}[number]
    for point, line in zip(theirs, expected, strict=True):
        assert point["dataset"] == line["dataset"].lower()
        assert point["top1"] == float(line["y_top1"])
        assert point["error"] == pytest.approx(100 - float(line["y_top1"]))
        trained = line["params_M_as_trained" if number == 6 else "x_counted_as_trained"]
        if trained:  # one network has no log
            assert point["x"] == pytest.approx(float(trained) * scale, rel=2e-3)
        if number != 6:
            assert line["x_printed"] == "" or point["x_printed"] == float(line["x_printed"]) * scale
        assert (point["x_counting"], point["trained_on"]) == ("authors", point["dataset"])
        assert point["source"].split(":")[0] in line["y_source"]
        assert np.isnan([point["low"], point["high"]]).all()


@pytest.mark.parametrize("number", NUMBERS)
def test_our_points_are_the_runs_at_the_full_networks_cost(demo, number):
    points = draw(number, demo)[1]
    ours = points[points["panel"] == "ours"].to_dict("records")
    assert [point["row"] for point in ours] == [
        line["row"] for line in read_csv(PAPER / "rows.csv") if line["item"] == f"figure{number}"
    ]
    for point in ours:
        last, _ = accuracies(demo.results, point["model"], "digits")
        assert point["n"] == len(last)
        assert point["top1"] == pytest.approx(np.mean(last))
        assert point["error"] == pytest.approx(100 - np.mean(last))
        assert (point["min"], point["max"]) == (min(last), max(last))
        assert point["x"] == pytest.approx(UNITS[number](*counts(point["model"], point["dataset"], "paper")))
        assert (point["x_counting"], point["trained_on"]) == ("paper", "digits")
        if len(last) > 1:
            half = stats.t.ppf(0.975, len(last) - 1) * stats.sem(last)
            assert point["low"] == pytest.approx(max(0, np.mean(last) - half))
            assert point["high"] == pytest.approx(min(100, np.mean(last) + half))
        else:
            assert np.isnan([point["low"], point["high"]]).all()


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_drawn_is_what_the_data_say(demo, number):
    figure, points = draw(number, demo)
    shown = "top1" if number == 6 else "error"
    for panel, axes in zip(["authors", "ours"] * 2, figure.axes, strict=False):
        dataset = points["dataset"].unique()[figure.axes.index(axes) // 2]
        some = points[(points["panel"] == panel) & (points["dataset"] == dataset)]
        lines = [line for line in axes.lines if line.get_marker() in "odDsv^"]
        drawn = np.concatenate([line.get_xydata() for line in lines])
        assert sorted(map(tuple, drawn)) == sorted(zip(some["x"], some[shown], strict=True))
        bars = [line.get_ydata() for line in axes.lines if line.get_marker() == "_"]
        known = some[some["n"] > 1]
        ends = known[["low", "high"]].to_numpy() if shown == "top1" else 100 - known[["high", "low"]].to_numpy()
        assert np.sort(bars, axis=None) == pytest.approx(np.sort(ends, axis=None))
        written = sorted(text.get_text() for text in axes.texts)
        assert written == sorted(some["label"])


@pytest.mark.parametrize("number", NUMBERS)
def test_the_scale_stands_on_the_face_of_our_panels(demo, number):
    for axes in draw(number, demo)[0].axes[1::2]:
        title = axes.get_title(loc="left").replace("\n", " ")
        assert title.startswith("Ours, scale demo: scikit-learn's 8x8 digits, narrowed networks")
        assert "not a reproduction" in title
        assert axes.get_facecolor() == matplotlib.colors.to_rgba(NO_REPRODUCTION)
        assert "digits, %" in axes.get_ylabel()
        assert "full-size network" in axes.get_xlabel()
        assert "n = " in axes.get_xlabel()
        assert "500 test images" in axes.get_xlabel()


def test_intervals_too_wide_to_draw_give_way_to_the_range_of_the_runs(own):
    low, high = sorted((own.results / "evaluations").glob("X-MobileNet-0.5-4--digits--g*.json"))
    for path, top1 in ((low, 20.0), (high, 90.0)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": top1}))
    figure, points = importlib.import_module("paper_figures.figure3").draw(own)
    point = points[(points["row"] == "X-4") & (points["panel"] == "ours")].iloc[0]
    assert (point["low"], point["high"]) == (0, 100)  # the interval reaches far beyond, and is cut
    bars = [sorted(line.get_ydata()) for line in figure.axes[1].lines if line.get_marker() == "_"]
    assert [10, 80] in bars
    assert len(bars) == 9
    assert (
        "bars: lowest to highest run,\nas the 95 % t intervals are up to 100 points wide" in figure.axes[1].get_xlabel()
    )


def test_data_sets_that_share_runs_say_so(demo):
    first, second = (axes.get_title(loc="left").replace("\n", " ") for axes in draw(4, demo)[0].axes[1::2])
    assert "same runs" not in first
    assert "Digits stand for CIFAR-100 too: the same runs as above" in second


def test_real_data_are_not_disclaimed(cifar):
    for number in (4, 6):
        for axes in draw(number, cifar)[0].axes[1::2]:
            assert "real CIFAR-10 and CIFAR-100" in axes.get_title(loc="left").replace("\n", " ")
            assert "reproduction" not in axes.get_title(loc="left")
            assert axes.get_facecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize("number", [3, 5])
def test_a_scale_without_imagenet_draws_the_authors_alone(cifar, number):
    figure, points = draw(number, cifar)
    assert set(points["panel"]) == {"authors"}
    assert [text.get_text() for text in figure.axes[1].texts] == ["scale cifar does not\ntrain these networks"]
    assert len(figure.axes[0].texts) == len(points)


@pytest.mark.parametrize("number", NUMBERS)
def test_labels_do_not_cover_one_another_nor_leave_the_figure(demo, number):
    figure = draw(number, demo)[0]
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # of the words alone, without leaders
        assert not [pair for pair in combinations(boxes, 2) if pair[0].padded(-1).overlaps(pair[1].padded(-1))]
        words = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for text in filter(lambda text: text.get_text(), words):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("number", FIGURES)
def test_files_are_the_same_to_the_last_byte_when_made_again(demo, number):
    folder = demo.results / "figures"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # among others: letters that the font lacks
        assert main(["figure", str(number)]) == 0
        first = {kind: (folder / f"figure{number}.{kind}").read_bytes() for kind in ("pdf", "png", "csv")}
        assert main(["figure", str(number)]) == 0
    assert {kind: (folder / f"figure{number}.{kind}").read_bytes() for kind in first} == first
    assert b"/FontFile2" in first["pdf"]  # TrueType, as publishers want it
    assert b"CreationDate" not in first["pdf"]
    assert len(pd.read_csv(folder / f"figure{number}.csv")) > 5


def test_the_palette_is_seaborns():
    assert list(COLOURS.values()) == [colour.lower() for colour in seaborn.color_palette("colorblind").as_hex()]


def test_neither_tables_nor_figures_load_torch(demo_folder):
    code = (
        "import sys; from paper_figures.__main__ import main; assert main(['tables']) == main(['figure', '3']) == 0; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=demo_folder, check=False).returncode == 0
