"""Packed data: what goes in comes out, damage is noticed, batches are what the authors' transforms would give."""

import contextlib
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xnets.data import open_data, pack, prepare
from xnets.data.batches import Batches, MixedSizes, OneSize, _random_window, epoch_order
from xnets.data.packed import Split
from xnets.errors import XNetsError

CPU = torch.device("cpu")


@pytest.fixture
def class_folder(tmp_path):
    """A folder of classes: 3 classes, 4 training and 2 test images each, 6x5 pixels."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for split, n in (("train", 4), ("test", 2)):
        for name in ("ant", "bee", "cat"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, test = digits.split("train"), digits.split("test")
    assert (len(train), len(test)) == (1297, 500)
    together = np.concatenate([train.images, test.images])
    assert (np.round(together[..., 0] * (16 / 255)) == bunch.images).all()
    assert (np.concatenate([train.labels, test.labels]) == bunch.target).all()
    assert digits.manifest["splits"]["test"]["per_class"] == np.bincount(bunch.target[-500:]).tolist()


def test_mean_and_sd_are_those_of_the_training_pixels(digits):
    pixels = digits.split("train").images.reshape(-1, 3) / 255
    assert np.allclose(digits.manifest["mean"], pixels.mean(0), atol=1e-7)
    assert np.allclose(digits.manifest["sd"], pixels.std(0), atol=1e-7)


def test_preparing_again_gives_the_same_digest(digits, tmp_path):
    assert prepare("digits", tmp_path / "again").digest == digits.digest


def test_folder_of_classes_is_packed_pixel_by_pixel(class_folder, tmp_path):
    data = prepare("mine", tmp_path / "packed", str(class_folder))
    assert data.manifest["classes"] == ["ant", "bee", "cat"]
    train = data.split("train")
    for i, path in enumerate(sorted((class_folder / "train").glob("*/*.png"))):
        assert (train.images[i] == np.asarray(Image.open(path))).all()
        assert data.manifest["classes"][train.labels[i]] == path.parent.name
    assert open_data(tmp_path / "packed").digest == data.digest


def test_folder_with_val_in_place_of_test(class_folder, tmp_path):
    (class_folder / "test").rename(class_folder / "val")
    assert len(prepare("mine", tmp_path / "packed", str(class_folder)).split("test")) == 6


def test_images_of_different_sizes_are_scaled_to_one_shorter_side(class_folder, tmp_path):
    wide = Image.fromarray(np.full((300, 600, 3), 7, dtype=np.uint8))
    wide.save(class_folder / "train" / "ant" / "wide.png")
    split = prepare("mine", tmp_path / "packed", str(class_folder)).split("train")
    assert (split.shapes.min(axis=1) == 256).all()
    assert split.shapes[4].tolist() == [256, 512]
    assert len(split.images) == (split.shapes.prod(axis=1) * 3).sum()


def _damage(name):
    def remove_train(root):
        for file in sorted((root / "train").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (root / "train").rmdir()

    def empty_class(root):
        for file in (root / "train" / "bee").iterdir():
            file.unlink()

    def lone_class(root):
        (root / "train" / "dog").mkdir()
        Image.new("RGB", (5, 6)).save(root / "train" / "dog" / "0.png")

    def broken_image(root):
        path = root / "test" / "cat" / "1.png"
        path.write_bytes(path.read_bytes()[:60])

    return {"train": remove_train, "bee": empty_class, "dog": lone_class, "1.png": broken_image}[name]


@pytest.mark.parametrize("named", ["train", "bee", "dog", "1.png"])
def test_incomplete_folders_are_named_in_one_sentence(class_folder, tmp_path, named):
    _damage(named)(class_folder)
    with pytest.raises(XNetsError, match=named) as error:
        prepare("mine", tmp_path / "packed", str(class_folder))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "packed").exists()


def test_a_failed_preparation_keeps_the_old_data(class_folder, tmp_path):
    before = prepare("mine", tmp_path / "packed", str(class_folder)).digest
    _damage("1.png")(class_folder)
    with pytest.raises(XNetsError):
        prepare("mine", tmp_path / "packed", str(class_folder))
    assert open_data(tmp_path / "packed").digest == before


def test_missing_source_and_unknown_download(tmp_path):
    with pytest.raises(XNetsError, match="imagenet"):
        prepare("imagenet", tmp_path / "x")
    with pytest.raises(XNetsError, match="imagenet cannot be downloaded"):
        prepare("imagenet", tmp_path / "x", "download")
    with pytest.raises(XNetsError, match="no train/"):
        prepare("cifar10", tmp_path / "x", str(tmp_path / "nowhere"))


def _write_cifar(root, n=20):
    """CIFAR-10 in torchvision's layout but of another content: its checksums must refuse it."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (n, 3072), dtype=np.uint8)
        content = {"data": pixels, "labels": [i % 10 for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))


def test_damaged_cifar_is_refused_by_its_checksum(tmp_path):
    _write_cifar(tmp_path / "raw")
    with pytest.raises(XNetsError, match="cifar10 could not be read") as error:
        prepare("cifar10", tmp_path / "packed", str(tmp_path / "raw"))
    assert "\n" not in str(error.value)


def test_cifar_in_torchvisions_layout(tmp_path, monkeypatch):
    from torchvision import datasets

    _write_cifar(tmp_path / "raw")
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    data = prepare("cifar10", tmp_path / "packed", str(tmp_path / "raw"))
    assert data.manifest["splits"]["train"]["n"] == 100
    assert data.manifest["splits"]["test"]["shape"] == [32, 32, 3]
    # the same images as a folder of classes, in another order: the same data set, so the same runs
    for split, train in (("train", True), ("test", False)):
        for i, (image, label) in enumerate(datasets.CIFAR10(str(tmp_path / "raw"), train=train)):
            path = tmp_path / "folder" / split / str(label) / f"{9999 - i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    assert prepare("cifar10", tmp_path / "again", str(tmp_path / "folder")).digest == data.digest


@pytest.mark.parametrize("lost", ["splits", "mean", "classes"])
def test_a_manifest_that_lacks_something_is_refused(tmp_path, lost):
    prepare("digits", tmp_path / "digits")
    path = tmp_path / "digits" / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != lost}))
    with pytest.raises(XNetsError, match=r"manifest\.json is damaged"):
        open_data(tmp_path / "digits")


@pytest.mark.parametrize("file", ["train.u8", "test.labels.npy", "manifest.json"])
@pytest.mark.parametrize("how", ["removed", "truncated", "changed"])
def test_damaged_packed_files_are_noticed(tmp_path, file, how):
    data = prepare("digits", tmp_path / "digits")
    path = tmp_path / "digits" / file
    content = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    if file == "manifest.json" and how == "changed":
        # a changed manifest is either unreadable or other data, with another digest: never silently the same
        with contextlib.suppress(XNetsError):
            assert open_data(tmp_path / "digits").digest != data.digest
        return
    with pytest.raises(XNetsError, match=r"prepare"):
        open_data(tmp_path / "digits").split(file.split(".")[0])


def test_a_manifest_of_another_format_is_refused(tmp_path):
    prepare("digits", tmp_path / "digits")
    path = tmp_path / "digits" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(XNetsError, match="format 99"):
        open_data(tmp_path / "digits")


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(XNetsError, match="No space left on device"):
        prepare("digits", tmp_path / "digits")


def test_grey_or_float_images_are_refused_by_pack(tmp_path):
    with pytest.raises(XNetsError, match="uint8"):
        pack(tmp_path / "x", "x", {"train": [(np.zeros((4, 4, 3)), 0)], "test": []}, ["a"])


def test_every_training_image_comes_once_in_an_epoch_and_order_changes():
    first, second = epoch_order(1297, 5, 0), epoch_order(1297, 5, 1)
    assert (np.sort(first) == np.arange(1297)).all()
    assert (first != second).any()
    assert (epoch_order(1297, 5, 0) == first).all()
    assert (epoch_order(1297, 6, 0) != first).any()


@given(st.integers(0, 2**40), st.integers(0, 4), st.booleans())
def test_crops_and_flips_are_windows_of_the_padded_image(seed, padding, flip):
    """Against plain slicing, image by image."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
    draws = rng.random((4, 5))
    chosen = rng.integers(0, 6, 4)
    got, labels = OneSize(Split(images, np.arange(6)), padding, CPU).augmented(chosen, draws, flip)
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for k, i in enumerate(chosen):
        top, left = int(draws[k, 0] * (2 * padding + 1)), int(draws[k, 1] * (2 * padding + 1))
        window = padded[i, top : top + 7, left : left + 5]
        window = window[:, ::-1] if flip and draws[k, 2] < 0.5 else window
        assert (got[k].numpy() == window).all()
    assert (labels.numpy() == chosen).all()


def test_batches_are_normalised_and_complete(digits):
    batches = Batches(digits, 64, "none", CPU)
    assert batches.steps == 21
    x = torch.cat([x for x, _ in batches.train(0, 0)])
    assert x.shape == (1297, 3, 8, 8)
    assert x.mean().abs() < 1e-5
    assert (x.std(unbiased=False) - 1).abs() < 1e-5
    images = digits.split("test").images
    expected = (torch.from_numpy(images[:500] / 255).permute(0, 3, 1, 2) - batches.mean) / batches.sd
    assert torch.allclose(next(batches.test())[0], expected.float(), atol=1e-6)


def test_an_epoch_can_be_entered_in_the_middle(digits):
    batches = Batches(digits, 100, "crop-1", CPU)
    whole = list(batches.train(3, 7))
    later = list(batches.train(3, 7, first_step=9))
    assert len(whole) - 9 == len(later)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[9:], later, strict=True))


def test_a_last_batch_of_one_image_is_left_out(digits):
    assert Batches(digits, 1296, "none", CPU).steps == 1
    assert Batches(digits, 1295, "none", CPU).steps == 2


def test_unknown_augmentation(digits):
    with pytest.raises(XNetsError, match="crop-4-flip"):
        Batches(digits, 64, "mixup", CPU)


@given(st.integers(8, 400), st.integers(8, 400), st.lists(st.floats(0, 0.999999), min_size=5, max_size=5))
def test_random_windows_lie_inside_and_have_the_stated_area(height, width, draws):
    top, left, h, w = _random_window(height, width, np.array(draws))
    assert 0 <= top <= height - h
    assert 0 <= left <= width - w
    assert h * w <= 1.1 * height * width * (0.08 + 0.92 * draws[0]) + height + width


def test_mixed_sizes_match_torchvisions_resize():
    """The crop of a flat image is flat, and a whole-image crop equals torchvision's antialiased resize."""
    from torchvision.transforms.v2 import functional as tv

    rng = np.random.default_rng(0)
    shapes = np.array([[256, 300], [280, 256]], dtype=np.int32)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    split = Split(np.concatenate([image.ravel() for image in images]), np.array([3, 4]), shapes)
    source = MixedSizes(split)
    got = source._resized(1, 10, 20, 200, 150, flipped=True)
    expected = tv.resized_crop(
        torch.from_numpy(images[1]).permute(2, 0, 1), 10, 20, 200, 150, [224, 224], antialias=True
    )
    difference = (got.int() - expected.permute(1, 2, 0).flip(1).int()).abs()
    assert difference.max() <= 1
    plain, labels = source.plain(np.array([0, 1]))
    assert labels.tolist() == [3, 4]
    assert (plain[0].numpy() == images[0][16:240, 38:262]).all()


def test_mixed_sizes_through_batches(class_folder, tmp_path):
    Image.fromarray(np.zeros((300, 400, 3), dtype=np.uint8)).save(class_folder / "train" / "ant" / "big.png")
    data = prepare("mine", tmp_path / "packed", str(class_folder))
    batches = Batches(data, 4, "resized-crop-flip", CPU)
    first = [x for x, _ in batches.train(1, 0)]
    assert [len(x) for x in first] == [4, 4, 4]
    assert first[0].shape == (4, 3, 224, 224)
    assert all(torch.equal(a, b) for a, (b, _) in zip(first[1:], batches.train(1, 0, first_step=1), strict=True))
    assert sum(len(y) for _, y in batches.test()) == 6
    with pytest.raises(XNetsError, match="resized-crop-flip"):
        Batches(data, 4, "crop-4-flip", CPU)
