"""Bytes as people say them, in one unit: 1 GB is 10^9 bytes."""

from __future__ import annotations

from math import floor, log10


def in_gigabytes(n: int) -> str:
    """Return a number of bytes in gigabytes, with as many digits as a small number needs to show.

    >>> in_gigabytes(211_300_000_000), in_gigabytes(1_504_000_000), in_gigabytes(2_000_000)
    ('211 GB', '1.5 GB', '0.002 GB')
    >>> in_gigabytes(8_960), in_gigabytes(0)
    ('0.000009 GB', '0 GB')
    """
    gigabytes = n / 1e9
    if gigabytes <= 0 or gigabytes >= 10:
        return f"{gigabytes:.0f} GB"
    digits = max(1, 1 - floor(log10(gigabytes)))
    return f"{f'{gigabytes:.{digits}f}'.rstrip('0').rstrip('.')} GB"
