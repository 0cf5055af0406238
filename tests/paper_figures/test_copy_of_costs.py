"""The copy of cost.csv that these tests read is what xnets counts today."""

import pytest
from conftest import CLASSES, counts, read_csv
from synthetic_results import HERE, REPOSITORY

from xnets.cost import COUNTING_RULES, cost
from xnets.errors import XNetsError


def test_every_network_of_the_paper_is_in_the_copy():
    rows = [row for row in read_csv(REPOSITORY / "experiments" / "paper" / "rows.csv") if row["model"]]
    assert not [row for row in rows if counts(row["model"], row["dataset"], "paper") is None]


@pytest.mark.slow
def test_the_copy_is_what_is_counted():
    copied = {
        (line["model"], line["num_classes"], line["counting"]): (float(line["parameters"]), float(line["macs"]))
        for line in read_csv(HERE / "cost.csv")
    }
    counted = {}
    for model, num_classes in {(model, num_classes) for model, num_classes, _ in copied}:
        assert num_classes in CLASSES.values()
        for rule in COUNTING_RULES:
            try:
                found = cost(model, rule, int(num_classes))
            except XNetsError:
                continue  # a network without this count
            counted[model, num_classes, rule] = (found.parameters, found.macs)
    assert copied == counted
