"""The summary of a graph: all of its measures, and for which of them it took samples."""

from hypothesis import given, settings

from tests.xnets.measure_cases import graphs
from xnets.graphs import union_of_matchings
from xnets.graphs.measures import diameter, mixing_time, sigma_ratio, summary


@given(graphs())
@settings(max_examples=40)
def test_the_summary_is_what_the_measures_say(graph):
    found = {name: measure.value for name, measure in summary(graph).items()}
    assert (found["inputs"], found["outputs"], found["edges"]) == (graph.n_in, graph.n_out, graph.n_edges)
    assert found["fan_out"] == (graph.out_degrees.min(), graph.out_degrees.max())
    assert (found["dead_inputs"], found["dead_outputs"]) == (
        (graph.out_degrees == 0).sum(),
        (graph.in_degrees == 0).sum(),
    )
    assert found["sigma_ratio"] == sigma_ratio(graph)
    assert found["diameter"] == diameter(graph)
    assert found["mixing_time"] == mixing_time(graph)
    assert found["expansion_bound"] <= found["expansion"]
    assert found["discrepancy_worst"] <= found["discrepancy_bound"] + 1e-6


def test_the_summary_says_what_it_took_samples_for(monkeypatch):
    graph = union_of_matchings(100, 100, 8, 0)
    assert "64 starts" not in summary(graph)["diameter"].about
    monkeypatch.setattr("xnets.graphs.measures.overview.ALL_SOURCES", 150)
    for name in ("diameter", "mixing_time", "mean_distance"):
        assert "64 starts" in summary(graph)[name].about
