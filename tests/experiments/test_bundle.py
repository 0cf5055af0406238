"""Bundles: what was computed elsewhere counts here, damage and mix-ups do not, and nothing here is overwritten."""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments import bundle as bundle_module
from experiments import settings as settings_module
from experiments import stages
from experiments.bundle import check_bundle, export_runs, import_bundles
from experiments.execute import execute
from experiments.store import Store
from experiments.store_cli import add_store
from xnets.data import open_data
from xnets.errors import XNetsError
from xnets.models import ModelSpec
from xnets.training import Protocol, Run
from xnets.training.loop import Stopped
from xnets.training.loop import train as train_run

PROTOCOL = Protocol(2, 64, 0.1, "cifar", "none", 1e-4, 300)
RUNS = [Run(ModelSpec("X-VGG16-1"), "digits", "0" * 64, PROTOCOL, seed, seed) for seed in range(4)]
FP = RUNS[0].fingerprint


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Who finds the store in use says so at once."""
    monkeypatch.setattr(Store, "lock", partialmethod(Store.lock, 0.1))


def finish(store, run, top1=90.0, weights="a", evaluated=True, host="there"):
    """A finished run that nobody trained."""
    epochs = [{"epoch": i, "lr": 0.1, "test_top1": top1} for i in range(run.protocol.epochs)]
    result = {"run": run.to_dict(), "epochs": epochs, "graphs_sha256": "g" * 64, "weights_sha256": weights * 64}
    store.write_result(run, {**result, "provenance": {"host": host, "seconds": 1.0, "commit": None}})
    (store.folder(run) / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in epochs))
    (store.folder(run) / "model.pt").write_bytes(bytes(range(256)) * 40)
    if evaluated:
        store.write_evaluation(run, {"top1": top1, "n": 500, "loss": 0.1, "top5": 99.0})


def contents(store):
    """Every file of the store but the lock."""
    paths = [path for path in store.root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(store.root)): path.read_bytes() for path in paths}


def files_of(store, run):
    return {f"{run.fingerprint}/{path.name}": path.read_bytes() for path in store.folder(run).iterdir()}


@pytest.fixture
def there(tmp_path):
    """A store with three finished runs."""
    store = Store(tmp_path / "there")
    for run in RUNS[:3]:
        finish(store, run)
    return store


@pytest.fixture
def here(tmp_path):
    """An empty store."""
    return Store(tmp_path / "here")


def read_tar(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def write_tar(path, files, extra=()):
    """A tar of these files, and then of members that are made by hand."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)


def edit_manifest(files, edit):
    manifest = json.loads(files["manifest.json"])
    edit(manifest)
    files["manifest.json"] = json.dumps(manifest).encode()


@pytest.mark.parametrize("name", ["runs.tar", "runs.tar.gz", "runs.tgz"])
def test_finished_runs_arrive_and_the_same_runs_make_the_same_bundle(tmp_path, there, here, name):
    file = tmp_path / "out" / name
    done = export_runs(there, file, RUNS)
    assert (done.files, done.finished, done.under_way, done.left_out) == ([file], 3, 0, [])
    assert next(iter(read_tar(file))) == "manifest.json"
    assert sorted(import_bundles(here, [file]).new) == sorted(run.label for run in RUNS[:3])
    assert contents(here) == {name: data for name, data in contents(there).items() if not name.endswith("model.pt")}
    first = file.read_bytes()
    export_runs(here, file, RUNS)
    assert file.read_bytes() == first, "the store, the time and the machine do not matter"
    again = import_bundles(here, [file, file])
    assert (again.new, len(set(again.known)), again.conflicts) == ([], 3, [])


def test_models_travel_when_asked_for_or_needed(tmp_path, there, here):
    file = tmp_path / "runs.tar"
    finish(there, RUNS[3], evaluated=False)
    export_runs(there, file, RUNS)
    import_bundles(here, [file])
    assert [(here.folder(run) / "model.pt").exists() for run in RUNS] == [False, False, False, True]
    there.write_evaluation(RUNS[3], {"top1": 90.0, "n": 500})
    export_runs(there, file, RUNS, models=True)
    assert len(import_bundles(here, [file]).known) == 4
    assert contents(here) == contents(there), "evaluation and models were added"
    (there.folder(RUNS[3]) / "model.pt").unlink()
    (there.folder(RUNS[3]) / "evaluation.json").unlink()
    done = export_runs(there, file, RUNS)
    assert done.finished == 3
    assert "neither an evaluation nor the model.pt" in done.left_out[0]


def test_all_takes_what_the_plan_does_not_name(tmp_path, there):
    export_runs(there, tmp_path / "one.tar", RUNS[1:2])
    assert [packed.run for packed in check_bundle(tmp_path / "one.tar")] == RUNS[1:2]
    (there.root / "notes").mkdir()
    (there.root / "notes" / "result.json").write_text("mine")
    path = there.folder(RUNS[2]) / "result.json"
    path.write_text(path.read_text().replace('"engine": 1', '"engine": 0'))
    done = export_runs(there, tmp_path / "all.tar", [], everything=True)
    assert done.finished == 2
    assert "engine 0" in done.left_out[0]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("runs.zip", {}, r"let it end in \.tar, \.tar\.gz or \.tgz"),
        (".tar", {}, "no name of a bundle"),
        ("runs.tar", {"planned": RUNS[3:]}, "Nothing to export: .*--all.*--unfinished"),
        ("runs.tar", {"max_mib": 0}, "more than 0"),
        ("runs.tar", {"max_mib": float("nan")}, "more than 0"),
        ("mine.tar", {}, "is there and is no bundle"),
        ("folder.tar", {}, "is there and is no bundle"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, there, name, options, said):
    (tmp_path / "mine.tar").write_text("my thesis")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(XNetsError, match=said):
        export_runs(there, tmp_path / name, **{"planned": RUNS, **options})
    assert (tmp_path / "mine.tar").read_text() == "my thesis"
    assert not (tmp_path / "runs.tar").exists()


@pytest.mark.parametrize("damage", ["", '{"fingerprint": "', "{}"])
@pytest.mark.parametrize("everything", [False, True])
def test_a_damaged_store_is_not_exported(tmp_path, there, damage, everything):
    (there.folder(RUNS[0]) / "result.json").write_text(damage)
    with pytest.raises(XNetsError, match=r"result\.json (is damaged|belongs to another run).*: delete it"):
        export_runs(there, tmp_path / "runs.tar", RUNS, everything=everything)


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_parts_are_bundles_none_larger_than_asked(tmp_path, there, here, suffix):
    generator = torch.Generator().manual_seed(0)
    finish(there, RUNS[3])
    for run in RUNS[:3]:  # not to be compressed
        noise = torch.randint(256, (100_000,), generator=generator, dtype=torch.uint8)
        (there.folder(run) / "model.pt").write_bytes(noise.numpy().tobytes())
    for mib, count in ((0.13, 4), (0.25, 2), (1.0, 1)):
        parts = export_runs(there, tmp_path / f"runs{suffix}", RUNS, models=True, max_mib=mib).files
        assert [path.name for path in parts] == [f"runs-{i + 1}{suffix}" for i in range(len(parts))]
        assert all(path.stat().st_size <= mib * 2**20 for path in parts)
        assert [run.fingerprint for run in sorted(RUNS, key=lambda run: run.fingerprint)] == [
            packed.run.fingerprint for path in parts for packed in check_bundle(path)
        ]
        assert len(parts) <= count
    parts = export_runs(there, tmp_path / f"runs{suffix}", RUNS, models=True, max_mib=0.13).files
    assert len(parts) >= 3
    assert len(import_bundles(here, parts[::-1]).new) == 4
    assert contents(here) == contents(there)
    with pytest.raises(XNetsError, match=r"X-VGG16-1--.* alone does not fit into 0\.05 MiB: say --max-mib") as refusal:
        export_runs(there, tmp_path / f"less{suffix}", RUNS, models=True, max_mib=0.05)
    advice = float(str(refusal.value).split("--max-mib ")[1].split()[0])
    assert export_runs(there, tmp_path / f"less{suffix}", RUNS, models=True, max_mib=advice).finished == 4


def test_a_conflict_is_reported_and_the_one_here_is_kept(tmp_path, there, here):
    finish(here, RUNS[0], top1=80.0, weights="b", host="here")
    finish(here, RUNS[1], host="here")
    before = contents(here)
    export_runs(there, tmp_path / "runs.tar", RUNS)
    done = import_bundles(here, [tmp_path / "runs.tar"])
    assert done.new == [RUNS[2].label]
    assert done.known == [RUNS[1].label], "another machine's provenance is no conflict"
    assert done.conflicts == [
        f"{RUNS[0].label}: here top-1 80.00 %, weights bbbbbbbbbbbb; in the bundle top-1 90.00 %, weights "
        "aaaaaaaaaaaa; the one here is kept."
    ]
    assert before.items() <= contents(here).items()


def test_a_result_replaces_an_attempt_with_all_its_remains(tmp_path, there, here):
    here.write_failure(RUNS[0], "it rained")
    for name in ("checkpoint.pt", "model.pt", "evaluation.json"):
        (here.folder(RUNS[0]) / name).write_text("of the attempt")
    export_runs(there, tmp_path / "runs.tar", RUNS[:1])
    import_bundles(here, [tmp_path / "runs.tar"])
    assert sorted(p.name for p in here.folder(RUNS[0]).iterdir()) == ["evaluation.json", "history.jsonl", "result.json"]
    assert here.failure(RUNS[0]) is None


def test_checkpoints_go_where_neither_result_nor_checkpoint_is(tmp_path, there, here):
    for run in RUNS[:3]:
        (there.folder(run) / "result.json").unlink()
        (there.folder(run) / "checkpoint.pt").write_text("there")
    with pytest.raises(XNetsError, match="Nothing to export"):
        export_runs(there, tmp_path / "runs.tar", RUNS)
    done = export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True)
    assert (done.finished, done.under_way) == (0, 3)
    finish(here, RUNS[0])
    here.folder(RUNS[1]).mkdir()
    (here.folder(RUNS[1]) / "checkpoint.pt").write_text("here")
    done = import_bundles(here, [tmp_path / "runs.tar"])
    assert done.under_way == [RUNS[2].label]
    assert sorted(sentence.split(": it is ")[1] for sentence in done.kept) == [
        "finished here; the bundle's checkpoint is not needed.",
        "under way here too; the checkpoint here is kept.",
    ]
    assert not (here.folder(RUNS[0]) / "checkpoint.pt").exists()
    assert (here.folder(RUNS[1]) / "checkpoint.pt").read_text() == "here"
    assert sorted(p.name for p in here.folder(RUNS[2]).iterdir()) == ["checkpoint.pt", "history.jsonl"]
    with there.lock(), pytest.raises(XNetsError, match="already training"):
        export_runs(there, tmp_path / "runs.tar", RUNS, unfinished=True)


# --- damage ---


@pytest.fixture(scope="module", params=["runs.tar", "runs.tgz"])
def good(request, tmp_path_factory):
    """A good bundle, its bytes and the files that it brings."""
    root = tmp_path_factory.mktemp("good")
    store, file = Store(root / "there"), root / request.param
    finish(store, RUNS[0])
    finish(store, RUNS[1], evaluated=False)
    export_runs(store, file, RUNS)
    import_bundles(Store(root / "whole"), [file])
    return file, file.read_bytes(), contents(Store(root / "whole"))


def assert_refused_or_whole(good, data):
    """A damaged bundle is refused before anything is written, unless the damage is where tar and gzip keep nothing."""
    file, _, whole = good
    bad, store = file.with_name(f"bad-{file.name}"), Store(file.parent / "target")
    bad.write_bytes(data)
    try:
        bundle = check_bundle(bad)
    except XNetsError:
        with pytest.raises(XNetsError, match=r"^/.*/bad-runs\.t"):
            import_bundles(store, [bad])
        assert not store.root.exists()
        return
    found = {f"{p.run.fingerprint}/{name}": about["sha256"] for p in bundle for name, about in p.files.items()}
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in whole.items()}


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(good, position, bit):
    flipped = bytearray(good[1])
    flipped[int(position * len(flipped))] ^= 1 << bit
    assert_refused_or_whole(good, bytes(flipped))


@given(length=st.floats(0, 1, exclude_max=True))
def test_a_truncated_bundle_is_found(good, length):
    assert_refused_or_whole(good, good[1][: int(length * len(good[1]))])


@given(noise=st.binary(max_size=2000), position=st.floats(0, 1))
def test_noise_is_found(good, noise, position):
    at = int(position * len(good[1]))
    assert_refused_or_whole(good, noise)
    assert_refused_or_whole(good, good[1][:at] + noise + good[1][at + len(noise) :])


def test_every_payload_byte_counts(tmp_path, there):
    """Each 97th byte of every file, flipped: all are refused."""
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS[:1], models=True)
    data = file.read_bytes()
    with tarfile.open(file) as tar:
        members = tar.getmembers()[1:]
    for member in members:
        for at in range(member.offset_data, member.offset_data + member.size, 97):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(XNetsError, match=r"runs\.tar is damaged: copy it here again"):
                check_bundle(file)


def member_of(kind, name, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../x"),
        tarfile.TarInfo("/tmp/x"),
        tarfile.TarInfo(f"{FP}/extra.json"),
        tarfile.TarInfo(f"{FP}/result.json"),
        member_of(tarfile.SYMTYPE, "symlink", "/etc/passwd"),
        member_of(tarfile.LNKTYPE, "hardlink", "manifest.json"),
        member_of(tarfile.DIRTYPE, "folder"),
        member_of(tarfile.FIFOTYPE, "pipe"),
    ],
    ids=lambda member: member.name[-12:].replace("/", "|"),
)
def test_members_that_are_none_of_a_bundle(tmp_path, there, here, member):
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    export_runs(there, good, RUNS)
    files = read_tar(good)
    write_tar(bad, files, [member])
    with pytest.raises(XNetsError, match=r"bad\.tar holds .*which its manifest does not list"):
        import_bundles(here, [bad])
    write_tar(bad, {"manifest.json": files["manifest.json"]}, [member])
    with pytest.raises(XNetsError, match=r"bad\.tar holds"):
        import_bundles(here, [good, bad])
    assert not here.root.exists(), "the good one waits for the bad one"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_files_place_is_refused(tmp_path, there, here, kind):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS[:1])
    manifest = read_tar(file)["manifest.json"]
    write_tar(file, {"manifest.json": manifest}, [member_of(kind, f"{FP}/result.json", "manifest.json")])
    with pytest.raises(XNetsError, match="holds"):
        import_bundles(here, [file])
    assert not here.root.exists()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["runs"].update({RUNS[1].fingerprint: m["runs"].pop(FP)}), f"describes run {FP[:12]} under"),
        (lambda m: m["runs"][FP]["run"].update(train_seed=7), "describes run .* under the fingerprint"),
        (lambda m: m["runs"][FP]["run"].update(engine=2), "engine 2.*Use the same version of the repository"),
        (lambda m: m["runs"][FP]["run"].pop("model"), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["run"].update(model=5), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["run"].update(more=5), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["run"]["protocol"].update(epochs="2"), "has a damaged manifest"),
        (lambda m: m["runs"][FP].update(label="another"), "has a damaged manifest"),
        (lambda m: m["runs"][FP].update(files={}), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["files"].pop("result.json"), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["files"].pop("history.jsonl"), "does not list"),
        (lambda m: m["runs"][FP]["files"].update({"../../x": {"sha256": "", "size": 0}}), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["files"]["result.json"].update(size=-1), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["files"]["result.json"].update(size=1), "in another size"),
        (lambda m: m["runs"][FP]["files"]["result.json"].update(sha256="0" * 64), "is damaged"),
        (lambda m: m["runs"].update(x=None), "has a damaged manifest"),
        (lambda m: m.update(runs=[]), "has a damaged manifest"),
        (lambda m: m.update(format=2), "has format 2, and this is format 1: use the same version"),
        (lambda m: m.update(format=None), "is no bundle of runs"),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path, there, here, edit, said):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS[:1])
    files = read_tar(file)
    edit_manifest(files, edit)
    write_tar(file, files)
    with pytest.raises(XNetsError, match=rf"runs\.tar.* {said}"):
        import_bundles(here, [file])
    assert not here.root.exists()


def forge(path, name, edit, with_manifest=True):
    """Edit a JSON file inside a bundle, and the manifest's sha256 along with it."""
    files = read_tar(path)
    content = json.loads(files[f"{FP}/{name}"])
    edit(content)
    data = files[f"{FP}/{name}"] = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    about = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    if with_manifest:
        edit_manifest(files, lambda m: m["runs"][FP]["files"].update({name: about}))
    write_tar(path, files)


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        ("result.json", lambda r: r.update(fingerprint="0" * 64), "is of another run"),
        ("result.json", lambda r: r["run"].update(graph_seed=3), "is of another run"),
        ("result.json", lambda r: r["epochs"].pop(), "does not have the run's 2 epochs"),
        ("result.json", lambda r: r["epochs"].reverse(), "does not have the run's 2 epochs"),
        ("result.json", lambda r: r["epochs"][1].update(test_top1=None), "has an epoch without an accuracy"),
        ("result.json", lambda r: r["epochs"][1].update(test_top1=float("nan")), "is not a result"),
        ("result.json", lambda r: r.update(epochs=[1, 2]), "is not a result"),
        ("result.json", lambda r: r.update(weights_sha256=None), "is not a result"),
        ("result.json", lambda r: r.pop("provenance"), "is not a result"),
        ("evaluation.json", lambda e: e.update(fingerprint="0" * 64), "is of another run"),
        ("evaluation.json", lambda e: e.pop("top1"), "is not an evaluation"),
    ],
)
def test_contents_that_cannot_be_this_runs(tmp_path, there, here, name, edit, said):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS[:1])
    forge(file, name, edit)
    with pytest.raises(XNetsError, match=rf"runs\.tar holds a {FP}/{name} that {said}"):
        import_bundles(here, [file])
    assert not here.root.exists()


def test_an_edited_accuracy(tmp_path, there, here):
    """Found if the manifest was left alone. If it was not, nothing can tell: it is new, or a conflict."""

    def better(result):
        result["epochs"][-1]["test_top1"] = 99.0

    alone, along = tmp_path / "alone.tar", tmp_path / "along.tar"
    for file in (alone, along):
        export_runs(there, file, RUNS[:1])
        forge(file, "result.json", better, with_manifest=file == along)
    with pytest.raises(XNetsError, match="is damaged"):
        import_bundles(here, [alone])
    assert import_bundles(here, [along]).new == [RUNS[0].label]
    assert "here top-1 90.00 %" in import_bundles(there, [along]).conflicts[0]


@pytest.mark.parametrize("content", ["nothing", "folder", "docker", b"", b"\x1f\x8b", b"PK\x03\x04", bytes(10240)])
def test_what_is_no_bundle_is_named(tmp_path, here, content):
    file = tmp_path / "runs.tar"
    if content == "folder":
        file.mkdir()
    elif content == "docker":  # its images begin with a manifest.json too
        write_tar(file, {"manifest.json": b"[]"})
    elif content != "nothing":
        file.write_bytes(content)
    with pytest.raises(XNetsError, match=r"runs\.tar (is|cannot be read)"):
        import_bundles(here, [file])
    assert not here.root.exists()


def test_damage_here_is_told_before_anything_is_written(tmp_path, there, here):
    finish(here, RUNS[2])
    (here.folder(RUNS[2]) / "result.json").write_text("{")
    before = contents(here)
    export_runs(there, tmp_path / "runs.tar", RUNS)
    with pytest.raises(XNetsError, match=r"result\.json is damaged: delete it"):
        import_bundles(here, [tmp_path / "runs.tar"])
    assert contents(here) == before


def test_a_full_disk_and_a_store_in_use(tmp_path, there, here, monkeypatch):
    export_runs(there, tmp_path / "runs.tar", RUNS)
    with here.lock(), pytest.raises(XNetsError, match="already training"):
        import_bundles(here, [tmp_path / "runs.tar"])
    copied, real = [], bundle_module._copy

    def full(reader, path):
        copied.append(path)
        if len(copied) == 3:
            raise XNetsError(f"Cannot write {path} (No space left on device)")
        real(reader, path)

    with monkeypatch.context() as patch:
        patch.setattr(bundle_module, "_copy", full)
        with pytest.raises(XNetsError, match="No space left"):
            import_bundles(here, [tmp_path / "runs.tar"])
    assert [p.name for p in here.root.iterdir() if p.is_dir()] == [min(run.fingerprint for run in RUNS[:3])]
    done = import_bundles(here, [tmp_path / "runs.tar"])
    assert (len(done.new), len(done.known)) == (2, 1)


# Import, and be killed before the n-th file appears or folder goes.
KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.bundle import import_bundles
from experiments.store import Store
left = int(sys.argv[3])
def counted(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
os.replace, os.rename, os.rmdir = counted(os.replace), counted(os.rename), counted(os.rmdir)
import_bundles(Store(Path(sys.argv[1])), [Path(sys.argv[2])])
"""


def test_a_killed_import_started_again_ends_complete(tmp_path, there, here, repository):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS, models=True)
    here.write_failure(RUNS[0], "an attempt")
    (here.folder(RUNS[0]) / "checkpoint.pt").write_text("an attempt")
    kills = 0
    for n in range(1, 30):  # each goes on where the one before was killed
        command = [sys.executable, "-c", KILLED, str(here.root), str(file), str(n)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=repository)
        for run in RUNS[:3]:
            if here.result(run):
                assert files_of(here, run) == files_of(there, run)
            else:
                assert here.evaluation(run) is None, "whole or not at all"
        if ended.returncode == 0:
            break
        assert ended.returncode == -9, ended.stderr
        kills += 1
    assert kills >= 5
    assert contents(here) == contents(there)


# --- with real runs ---


def no_executor(*args):
    raise AssertionError("something was left to train or evaluate")


def test_full_circle(tiny, tiny_plan, tmp_path, monkeypatch):
    """Trained there, counted here: all is done, and the results are the same bytes."""

    def outcome(plan):
        for stage in (stages.sample, stages.train, stages.evaluate):
            stage(plan)
        return {str(path): path.read_bytes() for path in plan.settings.results.rglob("*") if path.is_file()}

    first = outcome(tiny_plan)
    assert len(first) > 6
    tiny.results.rename(tmp_path / "results-there")
    export_runs(Store(tiny.store), tmp_path / "runs.tgz", tiny_plan.runs())
    elsewhere = Store(tmp_path / "elsewhere")
    assert len(import_bundles(elsewhere, [tmp_path / "runs.tgz"]).new) == 3
    monkeypatch.setattr(stages, "find_executor", lambda name: no_executor)
    assert outcome(replace(tiny_plan, settings=replace(tiny, store=elsewhere.root))) == first


def test_a_run_under_way_goes_on_elsewhere_to_the_same_end(tiny, tiny_plan, tmp_path):
    run, device = tiny_plan.runs()[0], torch.device("cpu")
    data, there, here = open_data(tiny.data_folder / run.dataset), Store(tiny.store), Store(tmp_path / "here")
    steps = iter(range(1000))
    there.folder(run).mkdir(parents=True)
    with pytest.raises(Stopped):
        train_run(run, data, there.folder(run), device, stop=lambda: next(steps) == 15)
    export_runs(there, tmp_path / "runs.tar", tiny_plan.runs(), unfinished=True)
    assert import_bundles(here, [tmp_path / "runs.tar"]).under_way == [run.label]
    execute("train", run, here, tiny.data_folder, device, 60)
    straight = train_run(run, data, tmp_path / "straight", device)
    assert here.result(run)["weights_sha256"] == straight["weights_sha256"]
    assert here.result(run)["epochs"] == straight["epochs"]


def test_the_command(tiny, tiny_plan, monkeypatch, capsys):
    parser = argparse.ArgumentParser("xnets")
    add_store(parser.add_subparsers())

    def call(*words):
        args = parser.parse_args(["store", *words])
        return args.run(args)

    first, second, _ = tiny_plan.runs()
    finish(Store(tiny.store), first)
    finish(Store(tiny.store), second)
    monkeypatch.setattr(settings_module, "read_settings", lambda: tiny)
    assert not call("export", "runs.tar")
    assert "2 finished runs of the 3 of scale tiny" in capsys.readouterr().out
    assert not call("export", "all.tar", "--all", "--models", "--max-mib", "1")
    assert Path("all-1.tar").exists()
    monkeypatch.setattr(settings_module, "read_settings", lambda: replace(tiny, store=Path("elsewhere")))
    assert call("import", "runs.tar", "all-1.tar") == 0
    assert capsys.readouterr().out.endswith("2 new, 2 already here, 0 in conflict; in elsewhere\n")
    finish(Store(Path("elsewhere")), first, top1=5.0)
    assert call("import", "runs.tar") == 1
    said = capsys.readouterr()
    assert said.out == "0 new, 1 already here, 1 in conflict; in elsewhere\n"
    assert said.err.startswith(f"conflict: {first.label}: here top-1 5.00 %")
    with pytest.raises(SystemExit):
        call("--help")
    assert "xnets store import runs.tar" in capsys.readouterr().out
