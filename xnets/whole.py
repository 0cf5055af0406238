"""Whole numbers, Python's or numpy's; truth values are none."""

import numpy as np

from xnets.errors import XNetsError


def is_whole(value: object) -> bool:
    """Whether it is one."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole_number(what: str, value: object, least: int = 1) -> int:
    """`value` as Python's. Raises XNetsError unless it is a whole number >= least."""
    if not is_whole(value) or value < least:
        raise XNetsError(f"{what} must be a whole number >= {least}, not {value!r}.")
    return int(value)
