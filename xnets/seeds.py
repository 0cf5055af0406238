"""Every random choice draws from a stream of its own, derived from one seed and the name of what it is for.

Draws use the raw 64-bit stream of numpy's PCG64, which numpy promises never to change.
"""

import hashlib

import numpy as np

from xnets.whole import whole_number


def checked_seed(seed: int, what: str = "seed") -> int:
    """Return `seed` if it is a whole number >= 0; raise XNetsError otherwise."""
    return whole_number(what, seed, least=0)


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(train_seed, "order", epoch)`.

    Streams of different purposes are independent, and adding one leaves the others as they are.
    """
    text = ":".join(str(part) for part in (checked_seed(seed), *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def uniform(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float64 in [0, 1) of that shape, the same with every version of numpy."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def permutation(seed: int, n: int, times: int = 1) -> np.ndarray:
    """(times, n) int64, each row the numbers below n in random order, the same with every version of numpy."""
    keys = np.random.PCG64(seed).random_raw(times * n).reshape(times, n)
    return np.argsort(keys, axis=1, kind="stable")
