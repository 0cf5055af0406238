"""A campaign: its list, its order, its command."""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments import campaign as campaign_module
from experiments import settings as settings_module
from experiments import slices
from experiments.campaign import campaign_runs, plans_of, read_campaign
from experiments.campaign_cli import add_campaign
from experiments.published import publish
from experiments.store import Store
from tests import made_up
from tests.experiments.conftest import ENTRIES
from xnets.errors import XNetsError


def test_the_order(campaign):
    """The first entry first, all first seeds before the second ones, no run twice."""
    first, rest = campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).values()
    assert [(run.model.name, run.train_seed) for run in first] == [("X-MobileNet-0.5-2", 0), ("X-MobileNet-0.5-2", 1)]
    assert [run.train_seed for run in rest] == [0, 0, 1, 1]
    assert {run.model.name for run in rest} == {"G-MobileNet-0.5-2", "MobileNet-0.5"}
    some = [replace(ENTRIES[1], seeds=1)]
    ((one, *_), *_) = campaign_runs(plans_of(campaign, some), some).values()
    assert {run.train_seed for run in campaign_runs(plans_of(campaign, some), some).popitem()[1]} == {0}
    assert one.train_seed == 0


@pytest.mark.parametrize("where", ["store", "published"])
def test_nothing_left_is_no_mistake(campaign, tmp_path, monkeypatch, capsys, where):
    """The command says so and ends with 0, so that a script that goes from slice to slice knows when to stop."""
    monkeypatch.setattr(settings_module, "read_settings", lambda: campaign)
    monkeypatch.setattr(campaign_module, "read_campaign", lambda: ENTRIES)
    for run in (run for runs in campaign_runs(plans_of(campaign, ENTRIES), ENTRIES).values() for run in runs):
        made_up.finish(Store(campaign.store), run, 50.0)
        if where == "published":
            publish(Store(campaign.store), [run], Path("published/tiny"))
    if where == "published":
        campaign.store.rename(tmp_path / "elsewhere")
    parser = argparse.ArgumentParser()
    add_campaign(parser.add_subparsers())
    args = parser.parse_args(["campaign", "run", "--minutes", "9", "--out", "bundles"])
    assert args.run(args) == 0
    said = capsys.readouterr()
    assert said.err == "all 6 runs of the campaign whose data are here are finished\n"
    assert said.out.splitlines()[-1] == "nothing is left to train"
    assert len(list(Path("bundles").glob("*"))) == (1 if where == "store" else 0)


def test_a_slice_needs_neither_installation_nor_dvc_nor_mlflow_nor_submitit():
    script = """
import sys
import xnets.plugins
xnets.plugins.installed = lambda group: ()
for name in ("dvc", "mlflow", "submitit", "seaborn", "pandas", "matplotlib"):
    sys.modules[name] = None
from experiments import campaign, claims, published, remake, slices
from experiments.settings import read_settings
from xnets.cli import main
read_settings()
main(["campaign", "run", "--help"])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--minutes", "inf"], r"^--minutes must be from 2 to 100000, not inf\.$"),
        (["--minutes", "nan"], r"^--minutes must be .*, not nan\.$"),
        (["--minutes", "1"], r"^--minutes must be .*, not 1\.$"),
        (["--minutes", "9", "--max-files", "0"], r"^--max-files must be 1 or more, not 0\.$"),
        (["--minutes", "9", "--max-mib", "inf"], r"^--max-mib must be .*, not inf\.$"),
    ],
)
def test_a_slice_without_bounds_is_refused(campaign, monkeypatch, words, says):
    monkeypatch.setattr(settings_module, "read_settings", lambda: campaign)
    monkeypatch.setattr(slices, "run_slice", lambda *_, **__: pytest.fail("it began"))
    parser = argparse.ArgumentParser()
    add_campaign(parser.add_subparsers())
    args = parser.parse_args(["campaign", "run", "--out", "bundles", *words])
    with pytest.raises(XNetsError, match=says):
        args.run(args)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({}, "must be a list of"),
        ([{"items": ["table4"]}], "entry 1: scale must be one of demo,"),
        ([{"scale": "cifar"}], "entry 1 needs items or studies"),
        ([{"scale": "cifar", "items": ["table9"]}], "table9"),
        ([{"scale": "cifar", "items": "table4"}], "items must be a list"),
        ([{"scale": "cifar", "items": ["table4"], "networks": "VGG16"}], "networks must be a list"),
        ([{"scale": "cifar", "items": ["table4"], "networks": ["VGG17"]}], "VGG17"),
        ([{"scale": "cifar", "items": ["table4"], "seeds": 0}], "seeds must be a whole number >= 1, not 0"),
        ([{"scale": "cifar-short", "studies": ["none"]}], "none"),
        ([{"scale": "cifar", "items": ["table4"]}, "table2"], "entry 2 must be"),
    ],
)
def test_mistakes_are_sentences(tmp_path, entries, says):
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(XNetsError, match=says):
        read_campaign(path)


def test_the_list_of_this_repository_is_sound():
    assert read_campaign()[0].networks == ("VGG16", "X-VGG16-1", "X-VGG16-2")
