"""Graph files, which cannot lie."""

import json

import numpy as np
import pytest

from xnets import XNetsError
from xnets.graphs import BipartiteGraph, grouped_graph, load_graph, random_expander, save_graph


@pytest.fixture
def saved(tmp_path):
    """A graph file, and its graph."""
    graph = random_expander(20, 10, 4, 7)
    save_graph(graph, tmp_path / "graph.npz")
    return tmp_path / "graph.npz", graph


@pytest.mark.parametrize(
    "graph",
    [
        random_expander(9, 7, 3, 2**70),
        random_expander(3, 7, 3, 0, replace=True),
        random_expander(4, 9, 1, 0, side="input"),
        grouped_graph(8, 4, 2),
        BipartiteGraph.from_mask(np.zeros((2, 3))),
    ],
)
def test_saved_graphs_come_back(graph, tmp_path):
    save_graph(graph, tmp_path / "graph.npz")
    back = load_graph(str(tmp_path / "graph.npz"))
    assert back == graph
    assert (back.seed, back.construction) == (graph.seed, graph.construction)


def test_a_flipped_bit_is_refused_or_did_not_matter(saved):
    path, graph = saved
    raw, refused = path.read_bytes(), 0
    for i in range(len(raw)):
        path.write_bytes(raw[:i] + bytes([raw[i] ^ 1 << i % 8]) + raw[i + 1 :])
        try:
            back = load_graph(path)
        except XNetsError:
            refused += 1
        else:  # the zip archive's dates and the like
            assert (back.hash, back.seed, back.construction) == (graph.hash, 7, "random")
    assert refused > len(raw) / 2


def test_a_truncated_file_is_refused(saved):
    path, _ = saved
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(XNetsError, match="is not a graph file, or is damaged"):
            load_graph(path)


def swap_edge(note, arrays):
    assert arrays["indices"][0] == 4  # the smallest input of output 0
    arrays["indices"][0] = 3


def swap_edge_and_hash(note, arrays):
    swap_edge(note, arrays)
    note["hash"] = BipartiteGraph(20, arrays["indptr"], arrays["indices"]).hash


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap_edge, "does not match its checksum"),
        (swap_edge_and_hash, "does not match its checksum"),
        (lambda note, _: note.update(seed=8), "does not match its checksum"),
        (lambda note, _: note.update(construction="matchings"), "does not match its checksum"),
        (lambda note, _: note.update(n_in=21), "does not match its checksum"),
        (lambda note, _: note.update(hash="0" * 64), "does not match its checksum"),
        (lambda note, _: note.pop("checksum"), "does not match its checksum"),
        (lambda note, _: note.update(n_in=4), "is damaged .*between 0 and 3"),
        (lambda note, _: note.update(n_in="20"), "is damaged"),
        (lambda note, _: note.pop("seed"), "is damaged"),
        (lambda note, _: note.update(format=2), "has format 2, .* update xnets"),
        (lambda _, arrays: arrays.pop("indptr"), "is not a graph file"),
    ],
)
def test_a_changed_file_is_refused(saved, change, says):
    path, _ = saved
    with np.load(path) as file:
        arrays = dict(file)
    note = json.loads(str(arrays.pop("note")))
    np.savez_compressed(path, note=json.dumps(note), **arrays)
    load_graph(path)  # rewritten unchanged it is fine
    change(note, arrays)
    np.savez_compressed(path, note=json.dumps(note), **arrays)
    with pytest.raises(XNetsError, match=says):
        load_graph(path)


def test_what_is_no_graph_file_is_refused(tmp_path):
    with pytest.raises(XNetsError, match=r"missing\.npz: there is no such graph file"):
        load_graph(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("not a zip archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "list.npz", note=json.dumps([1]), indptr=[0, 1], indices=[0])
    for name in ("text.npz", "array.npy", "list.npz", "."):
        with pytest.raises(XNetsError, match="is not a graph file, or is damaged"):
            load_graph(tmp_path / name)
