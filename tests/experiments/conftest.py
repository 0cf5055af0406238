"""A small world: three networks of Table 5, seconds to train, in a folder of its own."""

import shutil
from dataclasses import replace

import pytest

from experiments import campaign as campaign_module
from experiments import plan as plan_module
from experiments.campaign import Entry
from experiments.plan import make_plan
from experiments.settings import LocalSettings, Settings
from experiments.store import Store

TINY = {
    "about": "two seconds of digits, for tests",
    "items": ["table5"],
    "datasets": {"imagenet": "digits"},
    "networks": {"mobilenet": {"narrow": 4, "drop_strides": 3}},
    "protocols": {"imagenet-mobilenet": {"epochs": 2, "batch_size": 100, "max_lr": 0.05, "augmentation": "crop-1"}},
}
KEPT = ("X-MobileNet-0.5-2", "G-MobileNet-0.5-2", "MobileNet-0.5")
# A campaign of it: one network first, then the others.
ENTRIES = [Entry("tiny", ("table5",), networks=("X-MobileNet-0.5-2",)), Entry("tiny", ("table5",))]


@pytest.fixture
def tiny(tmp_path, monkeypatch, digits):
    """Settings of the small world, with its data prepared, three cells and one seed each."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits.folder, tmp_path / "data" / "digits")
    monkeypatch.setattr(plan_module, "read_scales", lambda: {"tiny": TINY})
    rows = tuple(row for row in plan_module.read_rows() if row.model in KEPT)
    monkeypatch.setattr(plan_module, "read_rows", lambda: rows)
    local = LocalSettings(device="cpu", workers=2)
    return Settings("tiny", {"table5": 1}, store=tmp_path / "store", data_folder=tmp_path / "data", local=local)


@pytest.fixture
def tiny_plan(tiny):
    """The plan of `tiny`."""
    return make_plan(tiny)


@pytest.fixture
def run(tiny_plan):
    """Its first run."""
    return tiny_plan.runs()[0]


@pytest.fixture
def store(tiny):
    """Its store, empty."""
    return Store(tiny.store)


@pytest.fixture
def campaign(tiny, monkeypatch):
    """Settings of the small world, two seeds of each network, known to campaigns as a scale of the paper's data."""
    settings = replace(tiny, seeds={"table5": 2}, sources={"digits": None})
    monkeypatch.setattr(campaign_module, "plan_of", lambda settings, scale: make_plan(settings))
    return settings


def with_protocol(plan, **changes):
    """The plan with another protocol in all cells."""
    cells = tuple(replace(cell, protocol=replace(cell.protocol, **changes)) for cell in plan.cells)
    return replace(plan, cells=cells)
