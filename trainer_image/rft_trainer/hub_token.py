"""The hub's token, as it is in the environment.

Invariant: no message holds a part of it. The hub's client repeats a token that cannot be sent, and the words of a stage
stand in the run's status.
"""

from __future__ import annotations

import os
import re

from rft_trainer.errors import BadInputError


def hub_token() -> str | None:
    """The token without the line break that a Secret made with ``echo`` ends with; None where there is none.

    Raises :class:`BadInputError` for what cannot be one.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if re.fullmatch(r"[!-~]*", token) is None:
        raise BadInputError(
            "HF_TOKEN holds characters that no token has (a space, a line break, a letter with an accent); write the "
            "token alone into the Secret that secretRef names"
        )
    return token or None
