"""`xnets graph`: what it prints and saves, and what it refuses."""

import json

import numpy as np
import pytest

from xnets import ExpanderLinear
from xnets.cli import main
from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, load_graph, sample_graph, save_graph
from xnets.graphs.measures import diameter, layers_until_all, sigma_ratio, summary

LAYER = ["--inputs", "24", "--compression", "4"]


def printed(capsys, *arguments):
    """The lines of a command that works."""
    assert main(["graph", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_names_lists_every_construction_once(capsys):
    lines = printed(capsys, "names")
    assert [line.split()[0] for line in lines] == list(CONSTRUCTIONS)
    assert [("same for every seed" in line) for line in lines] == [not c.seeded for c in CONSTRUCTIONS.values()]


def test_sample_saves_the_graph_it_names(capsys, tmp_path):
    path = tmp_path / "graph.npz"
    (line,) = printed(capsys, "sample", "paley", *LAYER, "--outputs", "30", "--seed", "3", "--file", str(path))
    graph = sample_graph("paley", 24, 30, 6, 3)
    assert load_graph(path) == graph
    assert (load_graph(path).seed, load_graph(path).construction) == (3, "paley")
    assert line.startswith("paley, seed 3: 24 -> 30, 180 edges, " + graph.hash)
    assert printed(capsys, "sample", "paley", "--inputs", "24", "--degree", "6")[0].endswith(
        sample_graph("paley", 24, 24, 6, 0).hash
    )


def test_measure_prints_the_summary_of_a_file_or_of_a_drawn_graph(capsys, tmp_path):
    graph = sample_graph("random", 24, 30, 6, 3)
    drawn = ["measure", "random", *LAYER, "--outputs", "30", "--seed", "3"]
    lines = printed(capsys, *drawn)
    for line, (name, measure) in zip(lines, summary(graph, 3).items(), strict=True):
        assert line.split()[0] == name
        assert line.endswith(measure.about)
    (found,) = map(json.loads, printed(capsys, *drawn, "--json"))
    values = {name: measure.value for name, measure in summary(graph, 3).items()}
    assert found == json.loads(json.dumps({"hash": graph.hash} | values))
    path = str(tmp_path / "graph.npz")
    printed(capsys, "sample", *drawn[1:], "--file", path)
    assert [json.loads(line) for line in printed(capsys, "measure", path, "--json", "--seed", "3")] == [found]


def test_compare_prints_a_row_for_each(capsys):
    names = ["random", "grouped", "grouped-shuffled"]
    rows = [json.loads(line) for line in printed(capsys, "compare", *names, *LAYER, "--seeds", "2", "--json")]
    for name, row in zip(names, rows, strict=False):
        graphs = [sample_graph(name, 24, 24, 6, seed) for seed in (0, 1)]
        assert row["graph"] == name
        assert row["sigma_ratio"] == pytest.approx(sum(map(sigma_ratio, graphs)) / 2)
        assert row["diameter"] == diameter(graphs[0])
        assert row["layers"] == layers_until_all([sample_graph(name, 24, 24, 6, seed) for seed in range(20)])
    assert rows[3].keys() == {"ramanujan_ratio", "least_ratio"}
    table = printed(capsys, "compare", *LAYER)
    assert [line.split()[0] for line in table[1:-1]] == list(CONSTRUCTIONS)
    assert f"is below {rows[3]['least_ratio']:.4f}." in table[-1]


def test_compare_goes_on_where_one_construction_cannot(capsys):
    """Inputs that draw cannot have 12 of 8 outputs; layers are counted between equal sides only."""
    table = printed(
        capsys, "compare", "random", "random-by-input", "--inputs", "24", "--outputs", "8", "--degree", "12"
    )
    assert table[1].split()[-1] == "-"
    assert "between 1 and 8" in table[2]
    rows = printed(capsys, "compare", "random", "random-by-input", "--inputs", "24", "--outputs", "8", "--degree", "12",
                   "--json")  # fmt: skip
    assert "between 1 and 8" in json.loads(rows[1])["refused"]


def test_where_inputs_draw_the_degree_is_an_inputs_as_in_a_layer(capsys):
    layer = ExpanderLinear(24, 8, compression=4, seed=0, graph="random-by-input")
    sampled = printed(capsys, "sample", "random-by-input", "--inputs", "24", "--outputs", "8", "--compression", "4")
    assert layer.graph.hash in sampled[0]
    table = printed(capsys, "compare", "random-by-input", "--inputs", "24", "--outputs", "8", "--compression", "4")
    assert "these 48 edges" in table[-1]
    assert layer.graph.n_edges == 48


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "ring", *LAYER], "Unknown graph 'ring'; there are random,"),
        (["sample", "random", "--inputs", "8", "--degree", "9"], "degree must be a whole number between 1 and 8"),
        (["sample", "random", "--inputs", "8", "--compression", "9"], "--compression must lie between 1 and the 8"),
        (["sample", "random", *LAYER, "--seed", "-1"], "graph seed must be a whole number"),
        (["measure", "random"], "random is drawn for a layer: add --inputs and --degree or --compression"),
        (["measure", "ring"], "ring is neither a graph file nor a construction; there are random,"),
        (["measure", "ring", *LAYER], "Unknown graph 'ring'"),
        (["measure", __file__], "is not a graph file"),
        (["compare", "random", "ring", *LAYER], "Unknown graph 'ring'"),
        (["compare", *LAYER, "--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["compare", "random-by-input", "--inputs", "24", "--outputs", "8", "--degree", "12"], "between 1 and 8"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, words, capsys):
    assert main(["graph", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_graph_without_edges_and_one_too_large_are_refused(capsys, tmp_path):
    path = tmp_path / "empty.npz"
    save_graph(BipartiteGraph.from_mask(np.zeros((3, 3))), path)
    assert main(["graph", "measure", str(path)]) == 2
    assert "without edges" in capsys.readouterr().err
    assert main(["graph", "measure", "random", "--inputs", "100000000000000", "--degree", "2"]) == 2
    assert "does not fit in memory" in capsys.readouterr().err
