"""How long a stage waits before its next attempt.

Invariant: no stage is tried in a loop. An end that is the run's own fault is paid for with a restart and a pause; one
that is nobody's fault is repeated at once, but the second in a row that came to nothing waits, and each more waits
longer. Nothing bounds their number: the limit in dollars does where GPUs are held, and a stage without GPUs costs
nothing while it waits for the cluster to leave it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from rft_operator.api.ledger import MAX_LEDGER_ENTRIES
from rft_operator.api.status import Attempt, AttemptOutcome
from rft_operator.domain.draft import Draft
from rft_operator.domain.stops import DRAINING_STOPS
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage

MAX_BACKOFF_SECONDS = 300
FULL_RETRY_SECONDS = 30
LASTING_SECONDS = 600
"""An attempt that lasted so long is no part of a loop, whatever came of it."""


def next_start(draft: Draft, former: Sequence[Attempt]) -> int | None:
    """Return when the next attempt of a stage may begin, given its former ones; None: at once."""
    last = former[-1] if former else None
    if last is None or last.end_time is None:
        return None
    if last.counted:
        power = draft.status.restarts.toward_limit - 1
    else:
        power = len(list(takewhile(_came_to_nothing, reversed(former)))) - 2
        if power < 0:
            return None
    pause = draft.view.settings.restart_backoff_seconds << min(max(0, power), 10)
    return epoch(last.end_time) + min(MAX_BACKOFF_SECONDS, pause)


def ledger_is_full(draft: Draft, stage: Stage) -> bool:
    """Return whether the bill has no room for the pods of one more attempt: too many are on nodes that do not answer.

    A status that is too long is refused as a whole, and with it every stop.
    """
    ledger = draft.status.ledger
    pods = {Stage.TRAIN: draft.spec.resources.nodes, Stage.EVALUATE: 1}.get(stage, 0)
    return pods > 0 and len(ledger.open) + len(ledger.uncounted) + pods > MAX_LEDGER_ENTRIES


def _came_to_nothing(attempt: Attempt) -> bool:
    """Return whether an attempt ended soon, saved nothing, and nobody had asked it to stop.

    One that its money ended before it had a pod was begun with that money: were it to begin again, it would for ever.
    """
    if attempt.end_time is None or attempt.outcome is AttemptOutcome.SUCCEEDED:
        return False
    if attempt.reason in DRAINING_STOPS and (attempt.reason != "BudgetExhausted" or attempt.bound_time is not None):
        return False
    soon = epoch(attempt.end_time) - epoch(attempt.start_time) < LASTING_SECONDS
    return soon and attempt.last_checkpoint_time is None
