"""When a team budget begins anew: days, weeks and months in UTC.

Invariant: a window never depends on when somebody looks, only on the instant it is asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rft_operator.api.team import Window

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
FIRST_MONDAY = 4 * DAY_SECONDS
"""1970-01-05."""


def window_start(window: Window, now: int) -> int | None:
    """Return when the window that holds ``now`` began; None for a budget that never begins anew by itself."""
    if window is Window.DAY:
        return now - now % DAY_SECONDS
    if window is Window.WEEK:
        return now - (now - FIRST_MONDAY) % WEEK_SECONDS
    if window is Window.MONTH:
        return _epoch(datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    return None


def next_window(window: Window, now: int) -> int | None:
    """Return when the next window begins; None if there is none."""
    start = window_start(window, now)
    if start is None:
        return None
    if window is Window.MONTH:
        first = datetime.fromtimestamp(start, UTC)
        return _epoch(first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1))
    return start + (DAY_SECONDS if window is Window.DAY else WEEK_SECONDS)


def _epoch(instant: datetime) -> int:
    return int(instant.timestamp())
