"""An identity to its random seed: every stream of random numbers is named, and its name fixes its draws."""

from __future__ import annotations

import hashlib
import json

Part = str | int | float | bool | None


def digest(*identity: object) -> str:
    """Return the SHA-256 hex digest of an identity's canonical JSON.

    Parameters
    ----------
    *identity : JSON values
        Strings, numbers, booleans, None, and lists or dicts of them.

    Returns
    -------
    str
        64 hexadecimal digits; equal identities give equal digests on every machine.
    """
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def derive(*identity: Part) -> int:
    """Return the seed of a named stream, an integer in [0, 2**63).

    >>> derive("order", 0) == derive("order", 0)
    True
    >>> derive("order", 0) == derive("order", 1)
    False
    """
    return int(digest(*identity)[:16], 16) >> 1
