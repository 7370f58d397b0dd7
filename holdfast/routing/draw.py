"""Chance that repeats itself: the same seed draws the same, in every process."""

from hashlib import blake2b

TRIAL = 0.02
"""Share of requests that try a deployment which its measurements speak against: only calls renew measurements."""


def uniform(seed: str, *about: str) -> float:
    """A number between 0 and 1, both excluded, for a seed and what is drawn."""
    digest = blake2b("\n".join((seed, *about)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64


def is_trial(seed: str, name: str) -> bool:
    """Whether this request is one of the few that look whether a slow deployment is still slow."""
    return bool(seed) and uniform(seed, "trial", name) < TRIAL
