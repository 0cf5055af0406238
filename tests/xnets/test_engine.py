"""Notices that the code computes something else than before: then ENGINE must be raised, or the change undone.

The numbers below were computed by engine 1. Graphs, order and augmentation are exact on every machine; losses agree to
what different CPUs and BLAS versions leave of float32.
"""

import hashlib

import numpy as np
import pytest
import torch

from xnets.data.batches import Batches, epoch_order
from xnets.models import ModelSpec
from xnets.training import ENGINE, Protocol, Run
from xnets.training.loop import build_run, graphs_digest, train

CPU = torch.device("cpu")
NETWORKS = {
    "X-VGG16-2": {"narrow": 16, "drop_strides": 2},
    "X-DenseNet-BC-2-10-24": {"narrow": 4},
    "X-ResNet-2-34": {"narrow": 8, "drop_strides": 2},
    "G-MobileNet-0.5-2": {"narrow": 4, "drop_strides": 3},
    "X-AlexNet-1": {"narrow": 16, "drop_strides": 2},
}
LOSSES = {
    "X-VGG16-2": [2.37718, 2.37594, 2.38243],
    "X-DenseNet-BC-2-10-24": [2.37593, 2.36806, 2.36621],
    "X-ResNet-2-34": [2.55979, 2.47103, 2.42975],
    "G-MobileNet-0.5-2": [2.3313, 2.34318, 2.33524],
    "X-AlexNet-1": [2.36934, 2.33307, 2.29783],
}
GRAPHS = {
    "X-VGG16-2": "3ef7e60c2367a5f0",
    "X-DenseNet-BC-2-10-24": "45cdada2976508c0",
    "X-ResNet-2-34": "e31ed47a722e329f",
    "G-MobileNet-0.5-2": "4f53cda18c2baa0c",
    "X-AlexNet-1": "e066cc66f6de1154",
}
ORDER = "81828dfeebeaac6d"
BATCH = "b48a9cf711ae3aaf"


def make_run(name, digits):
    # three steps over all images: rounding that differs from CPU to CPU has no time to grow
    protocol = Protocol(3, 1297, 0.005, "decay", "crop-1", 5e-4, nominal_epochs=300, decay_interval=100)
    return Run(ModelSpec(name, 10, **NETWORKS[name]), "digits", digits.digest, protocol, 3, 4)


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_this_is_the_engine_these_numbers_are_of():
    assert ENGINE == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_are_those_of_the_engine(name, digits, tmp_path):
    epochs = train(make_run(name, digits), digits, tmp_path, CPU)["epochs"]
    first, *later = (record["train_loss"] for record in epochs)
    assert first == pytest.approx(LOSSES[name][0], rel=1e-4)
    assert later == pytest.approx(LOSSES[name][1:], rel=5e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_are_those_of_the_engine(name, digits):
    assert graphs_digest(build_run(make_run(name, digits), CPU))[:16] == GRAPHS[name]


def test_order_and_augmentation_are_those_of_the_engine(digits):
    assert sha(epoch_order(1297, 4, 1)) == ORDER
    batches = Batches(digits, 100, "crop-4-flip", CPU)
    pixels = next(batches.train(4, 1))[0] * batches.sd + batches.mean
    assert sha((pixels * 255).round().to(torch.uint8).numpy()) == BATCH
