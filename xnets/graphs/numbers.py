"""What the explicit graphs need to know about primes."""

import numpy as np


def is_prime(n: int) -> bool:
    """By trial division: for numbers up to some 10^12."""
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def primitive_root(q: int) -> int:
    """The smallest number whose powers are all of 1 .. q - 1 modulo the prime q."""
    left, factors = q - 1, []
    for d in range(2, int(q**0.5) + 1):
        if left % d == 0:
            factors.append(d)
            while left % d == 0:
                left //= d
    factors += [left] if left > 1 else []
    return next(g for g in range(1, q) if all(pow(g, (q - 1) // f, q) != 1 for f in factors))


def powers(g: int, q: int) -> np.ndarray:
    """(q - 1,) int64: g^0, g^1, ... modulo q, a prime below 2^31."""
    known = np.ones(1, dtype=np.int64)
    while len(known) < q - 1:
        known = np.concatenate([known, known * pow(g, len(known), q) % q])
    return known[: q - 1]


def inverses(q: int) -> np.ndarray:
    """(q,) int64: 1 / x modulo the prime q for each x; 0 for 0, which has none."""
    forth = powers(primitive_root(q), q)
    table = np.zeros(q, dtype=np.int64)
    table[forth] = np.roll(forth[::-1], 1)  # g^k and g^(q - 1 - k)
    return table
