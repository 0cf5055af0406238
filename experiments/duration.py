"""Lengths of time for people."""


def duration(seconds: float) -> str:
    """8 s, 90 min, 2.5 h, 12 h, 3.0 days: two digits and a unit."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
