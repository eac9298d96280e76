"""Dollars as exact integers of a millionth, and as text for people.

Invariant: no float ever holds money. Rounding happens once, upwards, when an amount is shown (docs/metering.md M12).
"""

from __future__ import annotations

import re

MICRO = 1_000_000
_MONEY = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?")
_OWN = re.compile(r"([0-9]+)(?:\.([0-9]{1,6}))?")


def micro_usd(amount: int | str) -> int:
    """Return dollars (``450``, ``"450.50"``) as micro-dollars; raises ValueError for anything else."""
    if isinstance(amount, int):
        if isinstance(amount, bool) or amount < 0 or amount >= 10**9:
            msg = f"{amount!r} is no amount of dollars between 0 and 999999999"
            raise ValueError(msg)
        return amount * MICRO
    match = _MONEY.fullmatch(amount)
    if match is None:
        msg = f'{amount!r} is no amount of dollars; write for example 450 or "450.50" (at most six decimals)'
        raise ValueError(msg)
    whole, fraction = match.groups()
    return int(whole) * MICRO + int((fraction or "").ljust(6, "0"))


def micro_of_text(text: str) -> int:
    """Return the micro-dollars of what :func:`usd_text` wrote, however large; raises ValueError for anything else."""
    match = _OWN.fullmatch(text)
    if match is None:
        msg = f"{text!r} is no amount that the operator wrote"
        raise ValueError(msg)
    whole, fraction = match.groups()
    return int(whole) * MICRO + int((fraction or "").ljust(6, "0"))


def usd_text(micro: int) -> str:
    """Return micro-dollars exactly, for example ``"60.960112"``."""
    sign = "-" if micro < 0 else ""
    return f"{sign}{abs(micro) // MICRO}.{abs(micro) % MICRO:06d}"


def usd_display(micro: int) -> str:
    """Return micro-dollars in cents, rounded up, for example ``"$60.97"``."""
    cents = -(-micro // 10_000)
    return f"${cents // 100}.{cents % 100:02d}"
