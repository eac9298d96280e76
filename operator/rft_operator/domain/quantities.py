"""Kubernetes' quantities as numbers.

Invariant: what the CRD's schema takes for a quantity is read; anything else is none.
"""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_UNITS = {"m": 1e-3, "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    f"{prefix}i": 2 ** (10 * power) for power, prefix in enumerate("KMGTP", start=1)
}


def quantity_floor(quantity: str | None) -> int | None:
    """Return a quantity rounded down: bytes, or whole processors."""
    match = _QUANTITY.fullmatch(quantity or "")
    return None if match is None else int(float(match[1]) * _UNITS[match[2] or ""])
