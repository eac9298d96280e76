"""The report's pictures: SVG that takes its colours from the page, so that it is right by day, by night and on paper.

Invariant: a picture is made of the numbers of the story alone, is the same for the same story, and says what it shows
to those who cannot see it (title and description); colours are told apart by the colour-blind (Okabe and Ito).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rft_operator.api.scores import Comparison, ScoreResult
from rft_operator.domain.money import MICRO
from rft_operator.report.story import CostShare, Curve, LossPoint, Money

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "#101010": "var(--ink)",
    "#707070": "var(--soft)",
    "#d9d9d9": "var(--grid)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--red)",
    "#009e73": "var(--green)",
    "#e69f00": "var(--orange)",
    "#cc79a7": "var(--pink)",
    "#56b4e9": "var(--sky)",
    "#fefefe": "var(--paper)",
}
"""Colours that matplotlib writes -> colours of the page."""
INK, SOFT, GRID, BLUE, RED, GREEN, ORANGE, PINK, SKY, PAPER = COLOURS
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "rft",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
WIDTH, HEIGHT = 7.6, 3.3
MOST_POINTS = 600
"""More steps than that are drawn as the mean of neighbours: nobody sees more, and the page stays small."""
FEW_POINTS = 20
"""Fewer have no trend."""
HOUR = 3_600
ABOVE = "outside upper left"


def loss_chart(points: Sequence[LossPoint], *, resumed_at: Sequence[int] = ()) -> str:
    """Return loss over steps: every step, and the trend."""
    shown = _thinned([(float(each.step), each.loss) for each in points])
    steps, losses = [x for x, _ in shown], [y for _, y in shown]

    def draw(axes: Axes) -> None:
        if len(shown) < FEW_POINTS:
            axes.plot(steps, losses, "o-", color=BLUE, linewidth=2, label="loss")
        else:
            axes.plot(steps, losses, color=SKY, linewidth=1, label="loss")
            axes.plot(steps, _smooth(losses), color=BLUE, linewidth=2, label="trend")
        for index, step in enumerate(resumed_at):
            axes.axvline(step, color=ORANGE, linestyle=":", label="resumed from a checkpoint" if index == 0 else None)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss per trained token")
        axes.legend(loc="upper right")

    first, last = points[0], points[-1]
    words = f"Loss from {first.loss:.3g} at step {first.step} to {last.loss:.3g} at step {last.step}."
    return _svg(draw, name="loss", title="Training loss", words=words)


def spend_chart(money: Money, *, train_start: int | None) -> str:
    """Return dollars over time against plan, stop line and limit."""
    start, lines = money.points[0].at, money.lines
    plan = money.plan if train_start is not None else None
    begin = max(0, (train_start or start) - start)
    now = money.points[-1].at
    foreseen = max(now, lines.forecast_at or now) - start
    last = max(1, foreseen, begin + plan.seconds if plan is not None else 0)
    unit, name = (60, "minutes") if last < 2 * HOUR else (HOUR, "hours")
    times = [(each.at - start) / unit for each in money.points]
    spent = [each.micro_usd / MICRO for each in money.points]

    def draw(axes: Axes) -> None:
        axes.plot(times, spent, color=BLUE, linewidth=2.4, label="spent")
        axes.fill_between(times, spent, color=BLUE, alpha=0.12, linewidth=0)
        if plan is not None:
            ends = [begin / unit, (begin + plan.seconds) / unit]
            axes.plot(ends, [0, plan.micro_usd / MICRO], color=GREEN, linestyle="--", label="planned")
        axes.axhline(lines.limit / MICRO, color=RED, linewidth=1.6, label="limit")
        if lines.stop is not None:
            axes.axhline(lines.stop / MICRO, color=RED, linestyle="--", linewidth=1.2, label="stop line of training")
        if lines.forecast is not None:
            ends = [times[-1], foreseen / unit]
            axes.plot(ends, [spent[-1], lines.forecast / MICRO], ":D", color=ORANGE, markevery=[1], label="forecast")
        axes.set_xlim(0, last / unit * 1.02)
        axes.set_ylim(0, max(lines.limit, lines.forecast or 0, money.spent_micro_usd) / MICRO * 1.06)
        axes.set_xlabel(f"{name} since the first GPU was held")
        axes.set_ylabel("US dollars")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)

    words = f"${money.spent_micro_usd / MICRO:.2f} spent of a limit of ${lines.limit / MICRO:.2f}."
    return _svg(draw, name="spend", title="Spending against plan, stop line and limit", words=words)


def score_chart(scores: Sequence[ScoreResult]) -> str:
    """Return each score with its interval, beside the base model's."""
    height = 0.9 + 0.62 * len(scores)

    def draw(axes: Axes) -> None:
        for row, score in enumerate(reversed(scores)):
            if score.baseline is not None:
                error = 1.96 * float(score.baseline_stderr) if score.baseline_stderr is not None else None
                base = float(score.baseline)
                axes.errorbar(base, row - 0.16, xerr=error, fmt="o", color=SOFT, markerfacecolor=PAPER, capsize=3)
            value = float(score.value)
            low, high = (float(end or value) for end in (score.interval_low, score.interval_high))
            spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar(value, row + 0.16, xerr=spread, fmt="o", color=BLUE, capsize=3, linewidth=2)
        # The bars alone would stand for themselves badly in a legend.
        axes.plot([], [], "o", color=BLUE, label="trained model, 95 % interval")
        if any(score.baseline is not None for score in scores):
            # An evaluation has one kind of baseline.
            published = any(score.comparison is Comparison.PUBLISHED for score in scores)
            label = "base model, as published" if published else "base model"
            axes.plot([], [], "o", color=SOFT, markerfacecolor=PAPER, label=label)
        axes.set_yticks(range(len(scores)), [f"{each.benchmark}\n{each.metric}" for each in reversed(scores)])
        axes.set_ylim(-0.6, len(scores) - 0.4)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of right answers")

    words = " ".join(f"{each.benchmark} {each.metric}: {each.value}." for each in scores)
    return _svg(draw, name="scores", title="Scores with 95 % intervals", words=words, height=height, legend=ABOVE)


def curve_chart(curves: Sequence[Curve]) -> str:
    """Return accuracy against thinking tokens."""
    names = list(dict.fromkeys(each.benchmark for each in curves))

    def draw(axes: Axes) -> None:
        for each in curves:
            colour = SERIES[names.index(each.benchmark) % len(SERIES)]
            style = "-" if each.of == "trained" else ":"
            axes.errorbar(
                [point.thinking_tokens for point in each.points],
                [point.value for point in each.points],
                yerr=[point.stderr or 0.0 for point in each.points],
                color=colour, linestyle=style, marker="o" if each.of == "trained" else "s", capsize=3,
                label=f"{each.benchmark}, {each.of} model",
            )  # fmt: skip
            for point in each.points if each.of == "trained" else ():
                axes.annotate(
                    point.setting, (point.thinking_tokens, point.value), xytext=(4, -12), textcoords="offset points",
                    fontsize=8, color=SOFT,
                )  # fmt: skip
        axes.set_xlabel("thinking tokens of an answer, mean")
        axes.set_ylabel("accuracy")
        axes.margins(x=0.12, y=0.16)
        axes.legend(loc="best")

    first = curves[0].points
    words = f"{curves[0].benchmark}: from {first[0].value:.3f} to {first[-1].value:.3f} with more thinking."
    return _svg(draw, name="thinking", title="Accuracy against thinking tokens", words=words)


def waste_chart(spent_micro_usd: int, waste: Sequence[CostShare]) -> str:
    """Return one bar: what the money was used for."""
    wasted = sum(each.micro_usd for each in waste)
    parts = [("useful", max(0, spent_micro_usd - wasted)), *((each.name, each.micro_usd) for each in waste)]
    colours = (GREEN, ORANGE, PINK, SKY, RED, SOFT, BLUE)

    def draw(axes: Axes) -> None:
        left = 0.0
        for index, (name, micro) in enumerate(parts):
            share = 100 * micro / max(1, spent_micro_usd)
            axes.barh([0], [share], left=left, color=colours[index % len(colours)], label=f"{name} {share:.1f} %")
            left += share
        axes.set_yticks([])
        axes.set_xlim(0, 100)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("percent of the money")

    words = ", ".join(f"{name} ${micro / MICRO:.2f}" for name, micro in parts) + "."
    return _svg(
        draw, name="waste", title="What the money was used for", words=words, height=1.5, legend="outside upper left"
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), max(1, size))]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _smooth(values: Sequence[float]) -> list[float]:
    """Return a moving mean over a twentieth of the points, centred."""
    half = max(1, len(values) // 40)
    found = []
    for index in range(len(values)):
        near = values[max(0, index - half) : index + half + 1]
        found.append(sum(near) / len(near))
    return found


def _svg(
    draw: Callable[[Axes], object], *, name: str, title: str, words: str, height: float = HEIGHT, legend: Any = ""
) -> str:
    """Draw; ``legend`` is a place outside of the axes, or empty where the picture has its own."""
    plain: Any = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    with mpl.rc_context({**plain, **STYLE}):  # whatever the user's own matplotlibrc says
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if legend:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(handles, labels, loc=legend, ncols=4)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(out.getvalue(), name=name, title=title, words=words)


def _inline(text: str, *, name: str, title: str, words: str) -> str:
    """Make it a part of a page: no header, names of its own, the page's colours and font, words for who cannot see."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r"font: (\S+) [^;\"]*", r"font-size: \1", text)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, variable)
    label = escape(f"{title}. {words}").replace("\\", "/")
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{label}">', text)
    return f"{text.strip()}\n"
