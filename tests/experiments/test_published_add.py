"""`xnets published add`: what it publishes, and what it refuses; and where `list` has nothing to say."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import scales as scales_module
from experiments import settings as settings_module
from experiments.published import publish, read_record
from experiments.published_cli import add_published
from tests.experiments.conftest import TINY
from tests.made_up import finish
from xnets.errors import XNetsError

OURS = {**TINY, "datasets": {"digits": "digits"}}  # a scale of the data it is said to be of


@pytest.fixture
def add(tiny, monkeypatch):
    """add("--dirty"): the command, in the small world."""
    monkeypatch.setattr(settings_module, "read_settings", lambda: tiny)
    monkeypatch.setattr(scales_module, "read_scales", lambda: {"tiny": OURS})
    parser = argparse.ArgumentParser()
    add_published(parser.add_subparsers())

    def call(*words):
        args = parser.parse_args(["published", "add", *words])
        return args.run(args)

    return call


def test_outside_the_repository_nothing_is_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_published(parser.add_subparsers())
    args = parser.parse_args(["published", "list"])
    with pytest.raises(XNetsError, match=r"^params\.yaml is not here: run this in the repository's top folder\.$"):
        args.run(args)


def published():
    return {path: path.read_bytes() for path in Path("published").rglob("*.json")}


def test_a_run_trained_with_uncommitted_changes_is_published_only_if_asked_for(add, tiny_plan, store, capsys):
    """Nor is any other before that is settled; the record says so."""
    clean, dirty, _ = tiny_plan.runs()
    finish(store, clean, 50.0, dirty=False)
    finish(store, dirty, 51.0, dirty=True)
    with pytest.raises(XNetsError, match=rf"^{dirty.label} was trained with uncommitted changes: .* with --dirty\.$"):
        add()
    assert not published()
    add("--dirty")
    assert capsys.readouterr().out == "2 new, 0 published before, of the 3 runs of scale tiny.\n"
    kept = {read_record(path).run: read_record(path).said["provenance"]["dirty"] for path in published()}
    assert kept == {clean: False, dirty: True}
    before = published()
    add()
    assert published() == before, "what is published is no matter any more"


@pytest.mark.parametrize("about", [{"commit": None, "dirty": None}, {"dirty": None}, {"commit": None, "dirty": False}])
def test_a_run_of_no_known_commit_is_published_only_if_asked_for(add, tiny_plan, store, about):
    """Trained in a copy without git: nobody can say that nothing was changed. From Python the same is refused."""
    run = tiny_plan.runs()[0]
    finish(store, run, 50.0, **about)
    says = rf"^{run.label} was trained by code of no known commit: clone .*, delete .* or publish .* with --dirty\.$"
    with pytest.raises(XNetsError, match=says):
        add()
    with pytest.raises(XNetsError, match=says):
        publish(store, [run], Path("published/tiny"))
    assert not published()
    add("--dirty")
    assert len(published()) == 1


def test_all_attempts_count(store, tiny_plan):
    """The first with changed code, or noting none as older versions did; the last, which finished it, without."""
    run, other, clean = tiny_plan.runs()
    finish(store, run, 50.0, attempts=[{"began": "", "dirty": True}, {"began": "", "dirty": False}])
    finish(store, other, 50.0, attempts=[{"began": ""}, {"began": "", "dirty": False}])
    finish(store, clean, 50.0, attempts=[{"began": "", "dirty": False}, {"began": "", "dirty": False}])
    for refused in (run, other):
        with pytest.raises(XNetsError, match=r"with uncommitted changes, or .*, in one of its attempts: commit, del"):
            publish(store, [clean, refused], Path("published/tiny"))
    assert not published()
    assert len(publish(store, [clean], Path("published/tiny"))[0]) == 1
    assert len(publish(store, [run, other], Path("published/tiny"), dirty=True)[0]) == 2


def test_runs_on_other_data_are_not_published_beside_those_there(store, tiny_plan):
    run, other, _ = tiny_plan.runs()
    elsewhere = replace(other, data_digest="0" * 64)
    finish(store, run, 50.0)
    finish(store, elsewhere, 50.0)
    says = r"was trained on another digits than .* of published/tiny: get the same data, or delete"
    with pytest.raises(XNetsError, match=says):
        publish(store, [run, elsewhere], Path("published/tiny"))
    assert not published()
    publish(store, [run], Path("published/tiny"))
    with pytest.raises(XNetsError, match=says):
        publish(store, [elsewhere], Path("published/tiny"))
    assert len(published()) == 1


def test_an_evaluation_of_another_network_is_not_published(add, tiny_plan, store):
    run = tiny_plan.runs()[0]
    finish(store, run, 50.0)
    store.write_evaluation(run, {"top1": 60.0, "n": 500})
    with pytest.raises(XNetsError, match=r"evaluation\.json says .* 60\.00 %, .*epoch to 50\.00 %.*: delete it"):
        add()
    assert not published()
    store.write_evaluation(run, {"top1": 50.19, "n": 500})  # a few images, as rounding may have it
    add()
    assert len(published()) == 1


def test_a_run_that_saw_a_part_of_the_test_set_is_not_published(tiny_plan, store):
    """Its record could not be read."""
    run = replace(tiny_plan.runs()[0], dataset="cifar10")
    finish(store, run, 50.0, n=500)
    with pytest.raises(XNetsError, match=r"has 500 test images where cifar10 has 10000: prepare all of it and train"):
        publish(store, [run], Path("published/tiny"))
