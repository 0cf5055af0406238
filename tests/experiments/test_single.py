"""`xnets train`: what cannot be trained is a sentence, before data are prepared."""

import argparse

import pytest

from experiments import single
from experiments.cli import add_train
from xnets.errors import XNetsError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threads", "-1"], r"^--threads must be 1 or more, not -1: leave it out"),
        (["--threads", "0"], r"^--threads must be 1 or more, not 0: leave it out"),
        (["--graph", "randm"], "Unknown graph 'randm'; there are random"),
        (["--init", "tourch"], "Unknown initialisation 'tourch'; there are torch"),
        (["--narrow", "0"], "narrow must be >= 1"),
        (["--narrow", "1000"], "cannot be narrowed 1000 times"),
        (["--rule", "paperr"], "paperr"),
        (["--protocol", "none"], "Unknown protocol 'none'"),
        (["--kernel", "fast"], "fast"),
    ],
)
def test_mistakes_are_told_before_data_are_prepared(monkeypatch, words, says):
    monkeypatch.setattr(single, "ready_data", lambda *_: pytest.fail("data were prepared"))
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers())
    args = parser.parse_args(["train", "X-MobileNet-0.5-8", *words])
    with pytest.raises(XNetsError, match=says):
        args.run(args)
