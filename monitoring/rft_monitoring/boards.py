"""The dashboards that the chart ships, as files.

Invariant: they are a function of this package alone, so that a test can tell whether the committed ones are up to date.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from rft_monitoring import operator_board, run_board, team_board

BOARDS = (run_board.BOARD, team_board.BOARD, operator_board.BOARD)


def outputs(root: Path) -> dict[Path, str]:
    """Return path and text of each dashboard."""
    folder = root / "helm" / "rft-operator" / "files" / "dashboards"
    texts = {board.uid: json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True) for board in BOARDS}
    return {folder / f"{uid}.json": f"{text}\n" for uid, text in texts.items()}
