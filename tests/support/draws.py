"""How far histories are drawn: the same few on every machine, or many others where somebody asks for a soak.

``RFT_TEST_DRAWS=20`` (``make soak``) draws twenty times as many, and other ones each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

TIMES = int(os.environ.get("RFT_TEST_DRAWS", "1"))


def drawn(histories: int) -> settings:
    """Return the settings of a state machine: so many histories of up to 40 steps."""
    return settings(
        max_examples=histories * TIMES,
        stateful_step_count=40,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
