"""X-Nets: sparse layers on expander graphs for PyTorch ("Deep Expander Networks", ECCV 2018).

    import xnets
    layer = xnets.ExpanderConv2d(64, 128, 3, padding=1, compression=4, seed=0)
    model = xnets.expand_model(torchvision.models.resnet50(), compression=4, seed=0)
    model = xnets.models.build("X-DenseNet-BC-2-40-24", num_classes=10)

Nothing heavy is imported until it is used: what only plans or looks things up starts without torch.
"""

import importlib
from typing import Any

from xnets.errors import XNetsError

__version__ = "0.1.0"
__all__ = [
    "ExpanderConv2d",
    "ExpanderLinear",
    "XNetsError",
    "expand_model",
    "for_inference",
    "for_training",
    "graphs",
    "kernels",
    "layers",
    "models",
    "to_dense",
]


def __getattr__(name: str) -> Any:
    if name in ("ExpanderConv2d", "ExpanderLinear", "expand_model", "for_training", "kernels", "to_dense"):
        return getattr(importlib.import_module("xnets.layers"), name)
    if name == "for_inference":
        return importlib.import_module("xnets.inference").for_inference
    if name in ("cost", "data", "graphs", "layers", "models", "training"):
        return importlib.import_module(f"xnets.{name}")
    raise AttributeError(f"module 'xnets' has no attribute {name!r}")
