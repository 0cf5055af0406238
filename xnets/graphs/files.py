"""Graphs as .npz files that carry their seed, their construction, a format version and a hash of their edges."""

import hashlib
import json
from pathlib import Path

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.bipartite import BipartiteGraph

FORMAT = 1


def save_graph(graph: BipartiteGraph, path: str | Path) -> None:
    """Write `graph` to `path` (.npz). Raises XNetsError if that cannot be written."""
    note = {"format": FORMAT, "n_in": graph.n_in, "seed": graph.seed, "construction": graph.construction}
    note |= {"hash": graph.hash, "checksum": _checksum(note, graph)}
    try:
        with open(path, "wb") as file:
            np.savez_compressed(file, indptr=graph.indptr, indices=graph.indices, note=np.array(json.dumps(note)))
    except OSError as error:
        raise XNetsError(f"Cannot write {path} ({error.strerror}): name another file, or make room.") from None


def load_graph(path: str | Path) -> BipartiteGraph:
    """Read a graph. Raises XNetsError if the file is missing, damaged, changed, or of a newer format."""
    try:
        with np.load(path) as arrays:
            note = dict(json.loads(str(arrays["note"])))
            indptr, indices = arrays["indptr"], arrays["indices"]
    except FileNotFoundError:
        raise XNetsError(f"{path}: there is no such graph file.") from None
    except Exception as error:  # zipfile, zlib, json and numpy each have their own ways to fail on a damaged file
        raise XNetsError(f"{path} is not a graph file, or is damaged ({error}): sample the graph again.") from None
    if note.get("format") != FORMAT:
        raise XNetsError(f"{path} has format {note.get('format')}, this version of xnets reads {FORMAT}: update xnets.")
    try:
        graph = BipartiteGraph(note["n_in"], indptr, indices, note["seed"], note["construction"])
    except (XNetsError, KeyError, TypeError) as error:
        raise XNetsError(f"{path} is damaged ({error}): sample the graph again.") from None
    if note.get("hash") != graph.hash or note.get("checksum") != _checksum(note, graph):
        raise XNetsError(f"{path} does not match its checksum, so it was changed after it was saved: sample it again.")
    return graph


def combined_hash(hashes: list[str]) -> str:
    """sha256 over the hashes of a network's graphs, layer by layer: what a run and its graph record must agree on."""
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _checksum(note: dict, graph: BipartiteGraph) -> str:
    """Over the edges and everything the note says about them."""
    said = [note.get(key) for key in ("format", "n_in", "seed", "construction")]
    return hashlib.sha256(json.dumps([said, graph.hash]).encode()).hexdigest()
