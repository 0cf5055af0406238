"""Figures of the theory: they show what was measured, and say how much of it there is."""

import csv
import importlib
import re

import numpy as np
import pandas as pd
import pytest

from experiments.theory.__main__ import small, write_rows
from experiments.theory.sensitivity import gap_layers
from paper_figures import __main__ as command
from paper_figures.drawing import save
from paper_figures.theory import constructions, gaps, mixing, sensitivity
from paper_figures.theory.measured import PUBLISHED, REPOSITORY, read
from xnets.errors import XNetsError
from xnets.graphs.measures.tails import chernoff_probability

NAMES = ("sensitivity", "mixing", "constructions", "gaps")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the stage `theory` measures at the scale demo."""
    folder = tmp_path_factory.mktemp("measured")
    for name, rows in small().items():
        write_rows(list(rows()), folder / f"{name}.csv")
    return folder


def module(name):
    return importlib.import_module(f"paper_figures.theory.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_small_and_published_measurements_are_drawn_the_same_every_time(name, measured, tmp_path):
    for i, folder in enumerate((measured, measured, PUBLISHED)):
        save(*module(name).draw(folder), tmp_path / f"{name}{i}")
    for kind in ("pdf", "png", "csv"):
        first, again, published = ((tmp_path / f"{name}{i}.{kind}").read_bytes() for i in range(3))
        assert first == again
        if name != "constructions":
            assert first != published
        if kind == "csv":
            assert published == (PUBLISHED.parent / f"{name}.csv").read_bytes(), "make theory"


def test_the_command_draws_into_the_results(own, measured):
    for name in NAMES:
        assert command.main(["theory", name, "--from", str(measured)]) == 0
        for kind in ("pdf", "png", "csv"):
            assert (own.results / "theory" / f"{name}.{kind}").stat().st_size > 500


def test_a_missing_file_is_named(tmp_path):
    for name in ("sensitivity", "mixing", "gaps"):
        with pytest.raises(XNetsError, match=f"{name}.csv: python -m experiments.theory {name}"):
            module(name).draw(tmp_path)


def test_depths_drawn_are_those_measured():
    figure, data = sensitivity.draw()
    left, middle, right = figure.axes
    lines = {line.get_label(): line for line in left.get_lines()}
    assert set(lines) >= {"butterfly", "grouped", "random (the paper's)", "grouped, shuffled"}
    shuffled = data[(data["construction"] == "grouped-shuffled") & (data["degree"] == 16)]
    assert lines["grouped, shuffled"].get_ydata().tolist() == shuffled.groupby("n")["layers"].max().tolist()
    assert len(lines["grouped"].get_ydata()) == 0  # it never sees all, and stands at the top as that
    assert any(text.get_text() == "never" for text in left.texts)
    promised = next(line for line in left.get_lines() if line.get_linestyle() == ":")
    assert promised.get_ydata()[-1] == pytest.approx(gap_layers(promised.get_xdata()[-1], 16))
    assert f"{data['n'].max():,}" in figure.get_supxlabel()
    lost = data[(data["construction"] == "random") & (data["n"] >= 256)].groupby("degree")[["lost", "followed"]].sum()
    shares = 100 * lost["lost"] / lost["followed"]
    drawn = next(line for line in right.get_lines() if line.get_marker() == "o")
    assert drawn.get_ydata() == pytest.approx(shares[shares > 0].to_numpy())
    assert "layers" in middle.get_ylabel()


def test_no_set_exceeds_the_lemmas_bound():
    figure, data = mixing.draw()
    assert (data[["random", "greedy", "spectral"]].max(axis=1) <= data["bound"] + 1e-6).all()
    for axes, name in zip(figure.axes, mixing.SHOWN, strict=True):
        some = data[data["graph"] == name].sort_values("expected")
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines["the lemma's bound for these sizes"].get_ydata() == pytest.approx(some["bound"].to_numpy())
        assert lines["the worst sets that a search found"].get_ydata() == pytest.approx(some["searched"].to_numpy())
    assert f"$n$ = {data['n'].iloc[0]}" in figure.get_supxlabel()


def test_constructions_are_those_of_the_benchmark():
    figure, data = constructions.draw()
    with open(REPOSITORY / "benchmarks" / "graph_gaps.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["inputs"], row["outputs"]) == ("512", "512")]
    assert len(data[data["inputs"] == 512]) == len(rows)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    for c, line in zip((2, 4, 8, 16), figure.axes[0].get_lines()[::3], strict=False):
        expected = {row["construction"]: float(row["sigma_ratio"]) for row in rows if row["compression"] == str(c)}
        drawn = {names[int(y)]: x for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        assert drawn == pytest.approx(expected)


def test_gaps_say_how_many_graphs_and_show_every_shape(measured):
    for folder in (measured, PUBLISHED):
        figure, data = gaps.draw(folder)
        said = figure.get_supxlabel()
        for n, count in data["graphs"].value_counts().items():
            assert f"{n:,} ({count})" in said
        left, middle, _ = figure.axes
        assert f"{len(data)} layer shapes" in left.get_title(loc="left")
        dots = sum(len(line.get_xdata()) for line in left.get_lines() if line.get_marker() == "o")
        assert dots == len(data)
        for name, row in gaps.chosen_shapes(data).iterrows():
            colour = gaps.FAMILIES[name][1]
            bound = next(
                line for line in middle.get_lines() if line.get_color() == colour and line.get_linestyle() == "--"
            )
            share, probability = bound.get_xdata()[150], bound.get_ydata()[150]
            sizes = int(row["n_in"]), int(row["n_out"]), int(row["degree"])
            assert probability == pytest.approx(chernoff_probability(*sizes, 1 - share * row["gap_median"]))


def test_what_the_readme_says_of_the_theory_is_what_was_measured():
    text = " ".join(
        (REPOSITORY / "README.md").read_text().split("## The theory, measured")[1].split("\n## ")[0].split()
    )
    shapes, stacks, graphs = read("gaps"), read("sensitivity"), pd.read_csv(REPOSITORY / "benchmarks/graph_gaps.csv")
    said = {int(number.replace(" ", "")) for number in re.findall(r"\b\d[\d ]*\b", text) if number.strip()}
    assert len(shapes) in said
    assert int((shapes["graphs_with_dead_inputs"] > 0.5).sum()) in said
    assert int((shapes["bound_gap"] < 0).sum()) in said
    assert shapes["vadhan_outputs"].max() < 1
    assert f"{shapes['vadhan_outputs'].max():.2f}" in text
    least = shapes.loc[(shapes["gap_min"] / shapes["gap_median"]).idxmin()]
    assert f"{least['n_in']} inputs, {least['n_out']} outputs and D = {least['degree']}" in text
    assert f"{100 * least['gap_min'] / least['gap_median']:.0f} % of the median gap" in text
    lost = stacks[(stacks["construction"] == "random") & (stacks["degree"] == 4) & (stacks["n"] >= 256)]
    assert f"{100 * lost['lost'].sum() / lost['followed'].sum():.1f} %" in text
    largest = stacks[(stacks["n"] == stacks["n"].max()) & (stacks["degree"] == 16)].groupby("construction")["layers"]
    for name in ("random", "matchings", "grouped-shuffled"):
        assert int(largest.max()[name]) in said
    assert np.isnan(largest.max()["grouped"])
    square = graphs[(graphs["inputs"] == 512) & (graphs["outputs"] == 512) & (graphs["compression"] == 8)]
    random = square[square["construction"] == "random"].iloc[0]
    assert f"{random['sigma_ratio']:.2f}" in text
    assert f"{random['ramanujan_ratio']:.2f}" in text
