"""What is noted of the code that a run was trained with."""

import subprocess

import pytest

from experiments import provenance
from experiments.provenance import commit


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder of code, not yet known to git."""
    (tmp_path / "xnets").mkdir()
    (tmp_path / "xnets" / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text("/store/\n")
    monkeypatch.setattr(provenance, "COMMIT_NOTE", tmp_path / ".commit.json")
    return tmp_path


def git(folder, *words):
    who = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def noted():
    """Asked anew."""
    return commit.__wrapped__()


def test_changes_and_new_modules_are_dirty_and_results_are_not(code):
    git(code, "init")
    git(code, "add", ".")
    assert noted() == {"commit": None, "dirty": None}, "nothing is committed yet"
    git(code, "commit", "-m", "all")
    assert (noted()["dirty"], len(noted()["commit"])) == (False, 40)
    (code / "store" / "code" / "xnets").mkdir(parents=True)
    (code / "store" / "code" / "xnets" / "frozen.py").touch()
    (code / "notes.txt").touch()
    assert noted()["dirty"] is False
    (code / "xnets" / "models").mkdir()
    (code / "xnets" / "models" / "new.py").touch()
    assert noted()["dirty"] is True
    (code / "xnets" / "models" / "new.py").unlink()
    (code / "xnets" / "__init__.py").write_text("changed = True")
    assert noted()["dirty"] is True


def test_what_is_wanted_and_what_was_done_is_no_code(code):
    """docs/campaign.md has one name the images in params.yaml; dvc writes dvc.lock before it trains."""
    git(code, "init")
    for name in ("params.yaml", "dvc.lock", "dvc.yaml"):
        (code / name).write_text("a: 1")
    git(code, "add", ".")
    git(code, "commit", "-m", "all")
    for name in ("params.yaml", "dvc.lock"):
        (code / name).write_text("a: 2")
    assert noted()["dirty"] is False
    (code / "dvc.yaml").write_text("a: 2")
    assert noted()["dirty"] is True


def test_a_copy_without_git_is_not_said_to_be_clean(code, monkeypatch):
    assert noted() == {"commit": None, "dirty": None}
    monkeypatch.setenv("PATH", "")  # nor is there a git to ask
    assert noted() == {"commit": None, "dirty": None}
