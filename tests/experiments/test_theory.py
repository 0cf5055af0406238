"""What is measured of the paper's statements on graphs, and the files that hold it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments.theory import __main__ as command
from experiments.theory.gaps import gap_rows, graphs_for
from experiments.theory.mixing import mixing_rows
from experiments.theory.sensitivity import Stack, follow, gap_layers, least_layers, sensitivity_rows
from experiments.theory.shapes import Shape, paper_shapes
from xnets.cost import cost
from xnets.graphs import sample_graph
from xnets.graphs.measures import layers_until_all
from xnets.seeds import derive_seed

PUBLISHED = Path(__file__).parents[2] / "docs" / "theory" / "measured"


def published(name: str) -> list[dict[str, str]]:
    with open(PUBLISHED / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def graphs_of(stack: Stack, depth: int):
    seeds = [derive_seed(stack.seed, "layer", d) for d in range(1, depth + 1)]
    return [sample_graph(stack.construction, stack.n, stack.n, stack.degree, seed) for seed in seeds]


@pytest.mark.parametrize("name", ["random", "matchings", "ramanujan", "butterfly", "grouped-shuffled", "grouped"])
@pytest.mark.parametrize("degree", [4, 8])
def test_following_inputs_is_sensitivity(name, degree):
    stack = Stack(name, 96, degree, 3, None)
    reach = follow(stack, 20)
    graphs = graphs_of(stack, 20)
    assert reach.layers == layers_until_all(graphs)
    seen = np.eye(96, dtype=bool)
    for graph in graphs:
        seen = graph.to_mask().astype(int) @ seen > 0
    assert reach.lost == (~seen.any(axis=0)).sum()
    if reach.layers_of_rest is not None:
        assert (seen.all(axis=0) == seen.any(axis=0)).all()
        assert reach.layers_of_rest >= least_layers(96 - reach.lost, degree)
    never = name == "grouped" or (name == "butterfly" and degree < 8)  # fewer than it has binary digits, and itself
    assert never == (reach.layers_of_rest is None)


def test_lost_inputs_mean_never_and_the_rest_has_a_depth():
    reach = follow(Stack("random", 512, 2, 0, None))
    assert reach.lost > 50
    assert reach.layers is None
    assert reach.layers_of_rest > least_layers(512, 2)
    assert follow(Stack("random", 512, 2, 0, 100)).followed == 100


def test_what_the_gap_proves_suffices_and_log_n_is_needed():
    for n, degree in ((256, 16), (1024, 8), (1024, 32)):
        (row,) = sensitivity_rows([Stack("matchings", n, degree, 0, None)])
        assert row["least_layers"] == int(np.ceil(np.log(n) / np.log(degree) - 1e-9))
        assert row["least_layers"] <= row["layers"] <= np.ceil(gap_layers(n, degree))
    assert gap_layers(100, 2) == np.inf


def test_shapes_are_those_of_the_counted_networks():
    shapes = paper_shapes()
    assert len(set(shapes)) == len(shapes) > 500
    of = {(shape.n_in, shape.n_out, shape.degree): shape for shape in shapes}
    assert of[512, 512, 32].families.split() == ["vgg", "mobilenet"]
    assert of[512, 512, 32].layers == 5 + 1
    assert {shape.families for shape in shapes} >= {"densenet", "resnet", "mobilenet", "vgg", "alexnet"}
    body = [s for s in shapes if s.families == "alexnet"]
    expected = sum(cost(f"X-AlexNet-{i}").macs for i in (1, 2)) - sum(
        s.n_out * s.degree * s.layers for s in body
    )  # fmt: skip
    dense = 2 * (cost("AlexNet").macs - 9216 * 4096 - 4096 * 4096)
    assert expected == pytest.approx(dense)


def test_numbers_of_graphs_are_round_and_fit_the_time():
    small, large, alexnet = Shape(12, 24, 6), Shape(2000, 1000, 500), Shape(9216, 4096, 128)
    assert graphs_for(small, 10_000, 2.0) == 10_000
    assert graphs_for(small, 200, 2.0) == 200
    assert 10 <= graphs_for(large, 10_000, 2.0) <= 100
    assert graphs_for(alexnet, 10_000, 2.0) == 10


def test_rows_of_gaps():
    row = next(gap_rows(200, 1.0))
    assert row["graphs"] == 200
    names = [name for name in row if name.startswith("gap_")]
    values = [row[name] for name in names]
    assert values == sorted(values)
    assert row["below_90"] <= row["below_95"] <= row["below_99"] <= 0.5
    assert row["below_90"] <= row["bound_below_90"]
    assert row["bound_gap"] <= row["gap_min"]


def test_rows_of_mixing():
    rows = list(mixing_rows(64, 8, (8, 2), 3, all_pairs=True))
    assert len(rows) == 5 * 4
    for row in rows:
        assert row["expected"] == 8 * row["inputs"] * row["outputs"] / 64
        assert max(row["random"], row["greedy"], row["spectral"]) <= row["bound"] + 1e-6
    grouped = [row for row in rows if row["graph"] == "grouped" and row["inputs"] == row["outputs"] == 32]
    assert grouped[0]["greedy"] == grouped[0]["expected"]  # sets of other groups: no edge at all


def test_the_command_writes_the_same_files_every_time(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(PUBLISHED.parents[2])
    for folder in ("a", "b"):
        assert command.main(["mixing", "sensitivity", "--size", "small", "--to", str(tmp_path / folder)]) == 0
    for name in ("mixing", "sensitivity"):
        assert (tmp_path / "a" / f"{name}.csv").read_bytes() == (tmp_path / "b" / f"{name}.csv").read_bytes()
    assert not (tmp_path / "a" / "gaps.csv").exists()
    assert "rows" in capfd.readouterr().err


def test_the_published_files_are_of_all_shapes_and_can_be_made_again():
    shapes = paper_shapes()
    rows = published("gaps")
    assert [(int(r["n_in"]), int(r["n_out"]), int(r["degree"])) for r in rows] == [
        (s.n_in, s.n_out, s.degree) for s in shapes
    ]
    again = next(gap_rows(10_000, 2.0))
    for name, value in rows[0].items():
        assert value == str(again[name]) or float(value) == pytest.approx(again[name], rel=1e-5, abs=1e-6)
    small = [row for row in published("sensitivity") if int(row["n"]) <= 1024]
    assert len(small) > 40
    for row in small[::5]:
        reach = follow(Stack(row["construction"], int(row["n"]), int(row["degree"]), int(row["seed"]), None))
        expected = [reach.layers, reach.layers_of_rest, reach.lost]
        found = [row["layers"], row["layers_of_rest"], row["lost"]]
        assert found == ["" if value is None else str(value) for value in expected]
    assert max(int(row["n"]) for row in published("sensitivity")) >= 10**6
