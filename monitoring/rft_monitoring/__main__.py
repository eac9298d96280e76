"""Writes the dashboards into the chart: ``python -m rft_monitoring [--check]``.

Invariant: the files are a function of this package alone, so that a test can tell whether they are up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from rft_monitoring import operator_board, run_board, team_board

FOLDER = Path(__file__).resolve().parents[2] / "helm" / "rft-operator" / "files" / "dashboards"
BOARDS = (run_board.BOARD, team_board.BOARD, operator_board.BOARD)


def files() -> Iterator[tuple[Path, str]]:
    """Yield path and text of each dashboard."""
    for board in BOARDS:
        text = json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True)
        yield FOLDER / f"{board.uid}.json", f"{text}\n"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if a file is not up to date.")
def main(check: bool) -> None:
    """Write the dashboards that the chart ships."""
    stale = [(path, text) for path, text in files() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path, text in stale:
        if check:
            click.echo(f"error: {path} is not up to date; run: make generate", err=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            click.echo(f"wrote {path}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
