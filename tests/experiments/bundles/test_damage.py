"""Damage and mix-ups are found before anything is written."""

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.bundles.exporting import export_runs
from experiments.bundles.format import SEAL_SIZE, check_bundle, seal
from experiments.bundles.importing import import_bundles
from experiments.store import Store
from tests.experiments.bundles.conftest import FP, RUNS, contents, finish, read_tar
from xnets.errors import XNetsError


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
    files["manifest.json"] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


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


def _is_same_content(data, whole):
    """Whether both are gzip streams of one content."""
    with contextlib.suppress(OSError, EOFError, zlib.error, ValueError):
        return gzip.decompress(data) == gzip.decompress(whole)
    return False


def assert_refused(good, data):
    """Whatever is not the bundle to the last byte is refused before anything is written."""
    file, whole, _ = good
    if data == whole:
        return
    bad, store = file.with_name(f"bad-{file.name}"), Store(file.parent / "target")
    bad.write_bytes(data)
    with pytest.raises(XNetsError, match=r"^/.*/bad-runs\.t"):
        check_bundle(bad)
    with pytest.raises(XNetsError, match=r"^/.*/bad-runs\.t"):
        import_bundles(store, [bad])
    assert contents(store) == {}


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(good, position, bit):
    flipped = bytearray(good[1])
    flipped[int(position * len(flipped))] ^= 1 << bit
    assert_refused(good, bytes(flipped))


@given(length=st.floats(0, 1, exclude_max=True))
def test_a_truncated_bundle_is_found(good, length):
    assert_refused(good, good[1][: int(length * len(good[1]))])


@given(noise=st.binary(max_size=2000), position=st.floats(0, 1))
def test_noise_is_found(good, noise, position):
    at = int(position * len(good[1]))
    assert_refused(good, noise)
    assert_refused(good, good[1][:at] + noise + good[1][at + len(noise) :])


def test_a_flipped_bit_is_found_in_every_header_and_after_the_files(good):
    """Every byte of the first kilobyte, and of the last."""
    for at in [*range(1024), *range(len(good[1]) - 1024, len(good[1]))]:
        assert_refused(good, good[1][:at] + bytes([good[1][at] ^ 2]) + good[1][at + 1 :])


def test_every_bit_of_a_compressed_bundle_counts(tmp_path, there):
    """Some say the same in another way to gzip: its header's time and system, and other codes for the same content."""
    file = tmp_path / "runs.tgz"
    export_runs(there, file, RUNS[:1])
    data, same = file.read_bytes(), 0
    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            if not _is_same_content(flipped, data):  # found by the sha256 of each file, as everywhere else
                continue
            same += 1
            file.write_bytes(flipped)
            with pytest.raises(XNetsError, match=r"runs\.tgz is damaged, or compressed by something else"):
                check_bundle(file)
    assert same > 8 * 32, "those of the seal's digest and of headers at the least"


def test_a_bundle_that_was_compressed_again_is_refused(good, tmp_path):
    """Its content is the bundle's, but nothing tells whether its bytes are those that were sent."""
    whole = good[1]
    if whole[:2] == b"\x1f\x8b":
        assert_refused(good, gzip.compress(gzip.decompress(whole)))
        assert_refused(good, whole[:-SEAL_SIZE])
        assert_refused(good, whole + whole[-SEAL_SIZE:])
    assert_refused(good, gzip.compress(whole))


@pytest.mark.parametrize("other", [b"\r", b"\t", b"\n"])
def test_another_space_in_the_manifest_is_found(good, other):
    """In a compressed bundle too that is whole in all else, its seal included."""
    compressed = good[0].suffix == ".tgz"
    tar = gzip.decompress(good[1]) if compressed else good[1]
    at = tar.index(b'\n "')
    tar = tar[: at + 1] + other + tar[at + 2 :]
    assert_refused(good, sealed(tar) if compressed else tar)


def sealed(tar):
    squeezed = gzip.compress(tar, mtime=0)
    return squeezed + seal(hashlib.sha256(squeezed).digest())


def test_a_sealed_bundle_is_taken_whichever_zlib_compressed_it(good, tmp_path):
    """The seal is of the bytes, not of how this machine would compress them."""
    tar = gzip.decompress(good[1]) if good[0].suffix == ".tgz" else good[1]
    other = tmp_path / "other.tgz"
    other.write_bytes(sealed(tar))
    assert other.read_bytes() != good[1]
    assert len(check_bundle(other)) == 2


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
    assert contents(here) == {}, "the good one waits for the bad one"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_files_place_is_refused(tmp_path, there, here, kind):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS[:1])
    manifest = read_tar(file)["manifest.json"]
    write_tar(file, {"manifest.json": manifest}, [member_of(kind, f"{FP}/result.json", "manifest.json")])
    with pytest.raises(XNetsError, match="holds"):
        import_bundles(here, [file])
    assert contents(here) == {}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["runs"].update({RUNS[1].fingerprint: m["runs"].pop(FP)}), f"describes run {FP[:12]} under"),
        (lambda m: m["runs"][FP]["run"].update(train_seed=7), "describes run .* under the fingerprint"),
        (lambda m: m["runs"][FP]["run"].update(engine=2), "engine 2.*Use the same version of the repository"),
        (lambda m: m["runs"][FP]["run"].pop("model"), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["run"].update(model=5), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["run"].update(more=5), "has a damaged manifest"),
        (lambda m: m["runs"][FP]["run"]["protocol"].update(epochs="2"), "epochs must be a whole number"),
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
    assert contents(here) == {}


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
        ("result.json", lambda r: r["epochs"][1].update(test_top1=100.1), "has an epoch without an accuracy"),
        ("result.json", lambda r: r["epochs"][1].update(lr=float("inf")), "is not a result"),
        ("result.json", lambda r: r.update(epochs=[1, 2]), "is not a result"),
        ("result.json", lambda r: r.update(weights_sha256=None), "is not a result"),
        ("result.json", lambda r: r.pop("provenance"), "is not a result"),
        ("result.json", lambda r: r.update(provenance={}), "lacks commit, cuda, .*seconds, threads in its provenance"),
        ("evaluation.json", lambda e: e.update(fingerprint="0" * 64), "is of another run"),
        ("evaluation.json", lambda e: e.pop("top1"), "is not an evaluation"),
        ("evaluation.json", lambda e: e.update(top1=-1), "is not an evaluation"),
    ],
)
def test_contents_that_cannot_be_this_runs(tmp_path, there, here, name, edit, said):
    file = tmp_path / "runs.tar"
    export_runs(there, file, RUNS[:1])
    forge(file, name, edit)
    with pytest.raises(XNetsError, match=rf"runs\.tar holds a {FP}/{name} that {said}"):
        import_bundles(here, [file])
    assert contents(here) == {}


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
    assert contents(here) == {}


def test_damage_here_is_told_before_anything_is_written(tmp_path, there, here):
    finish(here, RUNS[2])
    (here.folder(RUNS[2]) / "result.json").write_text("{")
    before = contents(here)
    export_runs(there, tmp_path / "runs.tar", RUNS)
    with pytest.raises(XNetsError, match=r"result\.json is damaged: delete it"):
        import_bundles(here, [tmp_path / "runs.tar"])
    assert contents(here) == before


def test_a_result_here_that_lacks_an_epoch_is_damage_too(tmp_path, there, here):
    finish(here, RUNS[0])
    here.write_result(RUNS[0], {**here.result(RUNS[0]), "epochs": []})
    export_runs(there, tmp_path / "runs.tar", RUNS)
    with pytest.raises(XNetsError, match=r"result\.json does not have the run's 2 epochs: delete it"):
        import_bundles(here, [tmp_path / "runs.tar"])
    assert [run for run in RUNS if here.is_done(run)] == RUNS[:1]
