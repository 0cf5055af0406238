"""The frozen code: all that a job imports, named after its content, whole or not there."""

import json
import os
import subprocess
import sys

import pytest

from experiments.provenance import commit
from slurm import snapshot
from slurm.snapshot import PACKAGES, freeze_code

SCRIPT = """
import json, sys
import slurm.job, slurm.commands, experiments.execute, xnets.training.loop, experiments.provenance
from experiments.scales import read_scales
from experiments.rows import read_rows
read_scales(), read_rows()
ours = {name: m.__file__ for name, m in sys.modules.items() if name.split(".")[0] in %r and m.__file__}
print(json.dumps([experiments.provenance.commit(), ours]))
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A little repository to freeze."""
    top = tmp_path / "code"
    for package in PACKAGES:
        (top / package / "__pycache__").mkdir(parents=True)
        (top / package / "__init__.py").write_text(f"name = {package!r}\n")
        (top / package / "__pycache__" / "x.pyc").write_text("x")
    (top / "slurm" / "clusters").mkdir()
    (top / "slurm" / "clusters" / "a.yaml").write_text("gpus: 1\n")
    (top / "params.yaml").write_text("scale: demo\n")
    monkeypatch.setattr(snapshot, "TOP", top)
    monkeypatch.setattr(snapshot, "commit", lambda: {"commit": "abc", "dirty": True})
    return top


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_process_elsewhere_imports_all_from_the_copy(tmp_path):
    frozen = freeze_code(tmp_path / "store" / "code")
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT % (PACKAGES,)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(frozen)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    noted, files = json.loads(done.stdout)
    assert noted == commit(), "the copy is no git repository: it brings a note"
    assert {name.split(".")[0] for name in files} == set(PACKAGES)
    assert all(path.startswith(f"{frozen}/") for path in files.values())


def test_it_is_the_packages_and_the_note(code, tmp_path):
    frozen = freeze_code(tmp_path / "frozen")
    wanted = {name: text for name, text in content(code).items() if name != "params.yaml" and "pycache" not in name}
    found = content(frozen)
    assert json.loads(found.pop(".commit.json")) == {"commit": "abc", "dirty": True}
    assert found == wanted
    assert os.stat(frozen).st_mode & 0o777 == 0o755


def test_the_same_code_is_copied_once(code, tmp_path, monkeypatch):
    frozen = freeze_code(tmp_path / "frozen")
    (code / "xnets" / "__pycache__" / "y.pyc").write_text("y")
    monkeypatch.setattr("shutil.copy2", None)
    assert freeze_code(tmp_path / "frozen") == frozen
    assert list((tmp_path / "frozen").iterdir()) == [frozen]


@pytest.mark.parametrize("change", ["edit", "rename", "add", "commit"])
def test_other_code_is_another_copy(code, tmp_path, monkeypatch, change):
    first = freeze_code(tmp_path / "frozen")
    before = content(first)
    path = code / "xnets" / "__init__.py"
    if change == "edit":
        path.write_text("name = 'xnetz'\n")
    elif change == "rename":
        path.rename(code / "xnets" / "other.py")
    elif change == "add":
        (code / "slurm" / "empty.py").touch()
    else:
        monkeypatch.setattr(snapshot, "commit", lambda: {"commit": "abd", "dirty": True})
    assert freeze_code(tmp_path / "frozen") != first
    assert content(first) == before


def test_an_interrupted_copy_does_not_count(code, tmp_path, monkeypatch):
    copied = []

    def copy(source, target):
        copied.append(source)
        if len(copied) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copy2", copy)
        with pytest.raises(KeyboardInterrupt):
            freeze_code(tmp_path / "frozen")
    assert [path for path in (tmp_path / "frozen").iterdir() if not path.name.startswith(".half.")] == []
    assert "slurm/clusters/a.yaml" in content(freeze_code(tmp_path / "frozen"))
