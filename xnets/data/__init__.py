"""Data sets: prepared once to packed uint8 with a manifest, then read as augmented batches."""

from xnets.data.packed import PackedData, manifest_digest, open_data, pack
from xnets.data.sources import NUM_CLASSES, prepare

__all__ = ["NUM_CLASSES", "PackedData", "manifest_digest", "open_data", "pack", "prepare"]
