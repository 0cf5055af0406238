"""Every random choice draws from a stream of its own, derived from one seed and the name of what it is for."""

import hashlib
import operator

from xnets.errors import XNetsError


def checked_seed(seed: int, what: str = "seed") -> int:
    """Return `seed` if it is a whole number >= 0; raise XNetsError otherwise."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise XNetsError(f"{what} must be a whole number >= 0, not {seed!r}.")
    return number


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(train_seed, "order", epoch)`.

    Streams of different purposes are independent, and adding one leaves the others as they are.
    """
    text = ":".join(str(part) for part in (checked_seed(seed), *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
