"""``python -m bench.planning``: how far the estimate is from runs whose times are published (docs/planning.md).

Nothing is run here.
"""

from __future__ import annotations

import click

from rft_operator.cli.output import table
from support.published_runs import published


@click.command()
def main() -> None:
    """Print the table of docs/planning.md."""
    rows = [("RUN", "PUBLISHED", "MODEL", "DIFFERENCE", "FITS", "SOURCE")]
    for run in published():
        unit, per = ("s", 1) if run.one_step else ("min", 60)
        rows.append(
            (
                run.name,
                f"{run.seconds / per:,.1f} {unit}",
                f"{run.modelled / per:,.1f} {unit}",
                f"{run.ratio - 1:+.0%}",
                "yes" if run.estimate.memory.fits else "no",
                run.source,
            )
        )
    for line in table(rows):
        click.echo(line)


if __name__ == "__main__":
    main()
