"""The live table of ``rft watch``: a bar for the work, a bar for the money, and the time to the stop line.

Invariant: it is only drawn on a terminal; what it shows is in :mod:`rft_operator.domain.figures`, which has no colours.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli.board import Key
from rft_operator.cli.output import age, one_line
from rft_operator.domain.figures import Figures, figures
from rft_operator.domain.money import usd_display

BAR_WIDTH = 16
WIDE, MEDIUM = 130, 100
"""Terminals of fewer columns get no step and loss, and of fewer still no bars."""
COLUMNS = {
    "RUN": 0, "STAGE": 0, "PROGRESS": 50, "ETA": 80, "PODS": 80, "$/H": 80, "SPENT OF LIMIT": 0, "STOP LINE": 60,
    "SCORE": 70,
}  # fmt: skip
"""The columns of the table, and how many the terminal must have for each."""
STAGE_STYLES = {"Complete": "bold green", "Failed": "bold red", "Suspended": "yellow", "Restarting": "yellow"}
SOON_SECONDS = 900
"""A stop line that is so near is shown in red."""


class LiveTable:
    """A view that redraws itself in place."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._trouble = ""

    def __enter__(self) -> LiveTable:
        """Begin to draw."""
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the table away: what is left is said in plain lines."""
        self._live.__exit__(kind, error, trace)

    def show(self, runs: dict[Key, ReasoningFinetune], *, now: int) -> None:
        """Draw the runs."""
        found = [figures(run, now=now) for _, run in sorted(runs.items())]
        self._live.update(drawn(found, width=self._console.width, trouble=self._trouble), refresh=True)

    def trouble(self, words: str) -> None:
        """Show it under the table."""
        self._trouble = words


def drawn(found: list[Figures], *, width: int, trouble: str = "") -> RenderableType:
    """Return the table for a terminal of so many columns."""
    spaces = len({it.namespace for it in found}) > 1
    heads = [head for head, least_columns in COLUMNS.items() if width >= least_columns]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        # what is long goes on in the next line: half a figure would be another figure
        table.add_column(head, no_wrap=head not in ("RUN", "SCORE"), overflow="fold")
    for it in found:
        cells: dict[str, RenderableType] = {
            "RUN": f"{it.namespace}/{it.name}" if spaces else it.name,
            "STAGE": Text(it.stage, style=STAGE_STYLES.get(it.stage, "cyan")),
            "PROGRESS": _work(it, width=width),
            "ETA": age(it.eta_seconds) if it.eta_seconds is not None else "-",
            "PODS": it.pods or "-",
            "$/H": usd_display(it.rate_micro_usd) if it.rate_micro_usd else "-",
            "SPENT OF LIMIT": _money(it, width=width),
            "STOP LINE": _stop(it),
            "SCORE": it.score or "-",
        }
        table.add_row(*(cells[head] for head in heads))
    notes = [Text(one_line(f"{it.name}: {it.why}"), style="yellow") for it in found if it.why]
    troubles = [Text(one_line(trouble), style="red")] if trouble else []
    return Group(table, *notes, *troubles)


def _work(it: Figures, *, width: int) -> RenderableType:
    if it.percent is None:
        return Text("-")
    cells: list[RenderableType] = [f"{it.percent:3d}%"]
    if width >= MEDIUM:
        cells.insert(0, ProgressBar(total=100, completed=it.percent, width=BAR_WIDTH, complete_style="cyan"))
    if width >= WIDE:
        cells.append(f"step {it.steps}" if it.steps is not None else "")
        cells.append(f"loss {it.loss}" if it.loss is not None else "")
    return _beside(*cells)


def _money(it: Figures, *, width: int) -> RenderableType:
    words = f"{usd_display(it.spent_micro_usd)} of {usd_display(it.limit_micro_usd)}"
    if width < MEDIUM:
        return Text(words)
    share = it.spent_micro_usd / max(1, it.limit_micro_usd)
    style = "green" if share < 0.5 else "yellow" if share < 0.8 else "red"
    bar = ProgressBar(total=1.0, completed=min(1.0, share), width=BAR_WIDTH, complete_style=style, finished_style=style)
    return _beside(bar, words)


def _beside(*cells: RenderableType) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(*cells)
    return grid


def _stop(it: Figures) -> Text:
    if it.stop_in_seconds is None:
        return Text("-")
    return Text(f"in {age(it.stop_in_seconds)}", style="red" if it.stop_in_seconds < SOON_SECONDS else "")
