"""The page: a story as HTML that needs no network, no script and no other file.

Invariant: every text of the story is escaped; every picture has its numbers in a table beside it; what is missing says
why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from rft_operator.api.scores import Comparison, ScoreResult
from rft_operator.cli.output import span
from rft_operator.domain.bill import hours_text
from rft_operator.domain.money import usd_display
from rft_operator.report.charts import curve_chart, loss_chart, score_chart, spend_chart, waste_chart
from rft_operator.report.story import CostShare, Money, Story

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
VERDICT_MARKS = {"Improved": "good", "Regressed": "bad", "Inconclusive": "open"}
STATE_MARKS = {"Complete": "good", "Failed": "bad"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
Rows = Sequence[Sequence[str]]


def page(story: Story) -> str:
    """Return the whole page."""
    return "\n".join(_lines(story)) + "\n"


def _lines(story: Story) -> Iterator[str]:
    title = escape(story.title)
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield f'<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}: report</title><style>{STYLE}</style></head>"
    yield "<body><main>"
    mark = STATE_MARKS.get(story.state, "open")
    yield f'<header><h1>{title} <span class="mark {mark}">{escape(story.state)}</span></h1>'
    yield f"<p class='soft'>{escape(_when(story))}</p>"
    if story.why:
        yield f"<p class='why'>{escape(story.why)}</p>"
    yield "</header>"
    yield from _cards(story)
    yield from _scores(story)
    yield from _thinking(story)
    yield from _money(story)
    yield from _loss(story)
    yield from _attempts(story)
    yield from _card(story)
    yield f"<footer class='soft'>Made by rft report at {_stamp(story.made_at)}.</footer>"
    yield "</main></body></html>"


def _when(story: Story) -> str:
    if story.start is None:
        return "Not started." if story.money is not None else "The folder does not say when it ran."
    if story.end is None:
        return f"Began {_stamp(story.start)}, {span(max(0, story.made_at - story.start))} ago."
    return f"{_stamp(story.start)} to {_stamp(story.end)}: {span(story.end - story.start)}."


def _stamp(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _cards(story: Story) -> Iterator[str]:
    cards: list[tuple[str, str, str]] = []
    if story.scores:
        first = story.scores[0]
        source = "published" if first.comparison is Comparison.PUBLISHED else "before"
        before = f"{_three(first.baseline)} {source}" if first.baseline is not None else first.metric
        cards.append((first.benchmark, _three(first.value), before))
    money = story.money
    if money is not None:
        limit = usd_display(money.lines.limit)
        cards.append(("Spent", usd_display(money.spent_micro_usd), f"of {limit}"))
        price = f"at {usd_display(money.price_micro_usd)}" if money.price_micro_usd is not None else "price not known"
        cards.append(("GPU-hours", hours_text(money.gpu_seconds), price))
        wasted = sum(each.micro_usd for each in money.waste)
        share = f"{100 * wasted / money.spent_micro_usd:.1f} %" if money.spent_micro_usd else "-"
        cards.append(("Waste", share, usd_display(wasted)))
    if story.losses:
        last = story.losses[-1]
        total = f" of {story.total_steps}" if story.total_steps else ""
        cards.append(("Loss", f"{last.loss:.4g}", f"step {last.step}{total}"))
    if story.attempts:
        cards.append(("Restarts", str(story.restarts), "of training"))
    yield "<ul class='cards'>"
    for name, value, words in cards:
        yield f"<li><span>{escape(name)}</span><strong>{escape(value)}</strong><small>{escape(words)}</small></li>"
    yield "</ul>"


def _section(title: str, name: str) -> str:
    return f"<section aria-labelledby='{name}'><h2 id='{name}'>{escape(title)}</h2>"


def _figure(svg: str, caption: str) -> Iterator[str]:
    yield "<figure>"
    yield svg
    yield f"<figcaption>{escape(caption)}</figcaption></figure>"


def _table(head: Sequence[str], rows: Rows, *, numbers: frozenset[int] = frozenset()) -> Iterator[str]:
    yield "<div class='scroll'><table><thead><tr>"
    yield "".join(f"<th scope='col'>{escape(each)}</th>" for each in head)
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (f"<td{' class=n' if index in numbers else ''}>{cell}</td>" for index, cell in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _missing(words: str) -> str:
    return f"<p class='missing'>{escape(words)}</p>"


def _scores(story: Story) -> Iterator[str]:
    yield _section("Scores", "scores-head")
    if not story.scores:
        yield f"{_missing(story.scores_note)}</section>"
        return
    if story.evaluation is not None and story.evaluation.partial:
        yield "<p class='why'>The evaluation was ended by its bound: scores are partial or missing.</p>"
    yield from _figure(
        score_chart(story.scores),
        "Share of right answers; bars are 95 % confidence intervals, for the base model 1.96 standard errors.",
    )
    head = ("Benchmark", "Score", "95 % interval", "Base", "Verdict", "Better / worse", "p", "Answers", "Missing")
    yield from _table(head, [_score_row(each) for each in story.scores], numbers=frozenset({1, 2, 3, 5, 6, 7, 8}))
    yield (
        "<p class='soft'>A verdict is Improved or Regressed where chance is an unlikely explanation (below 5 %, "
        "adjusted for the number of benchmarks).</p></section>"
    )


def _score_row(score: ScoreResult) -> list[str]:
    verdict = "-"
    if score.verdict is not None:
        mark = VERDICT_MARKS.get(score.verdict.value, "open")
        verdict = f"<span class='mark {mark}'>{escape(score.verdict.value)}</span>"
    published = {Comparison.PUBLISHED: " (published)", None: " (measured or published)"}.get(score.comparison, "")
    partial = f" of {score.partial_of}" if score.partial_of is not None else ""
    return [
        f"{escape(score.benchmark)} <small>{escape(score.metric)}</small>",
        _three(score.value),
        f"{_three(score.interval_low)} to {_three(score.interval_high)}" if score.interval_low is not None else "-",
        f"{_three(score.baseline)}{published}" if score.baseline is not None else "-",
        verdict,
        f"{score.wins} / {score.losses}" if score.wins is not None and score.losses is not None else "-",
        ("&lt; 0.0001" if float(score.p_value) < 1e-4 else escape(score.p_value)) if score.p_value is not None else "-",
        f"{score.questions * score.samples}{partial}",
        f"{score.no_answer}" + (f", {score.capped} capped" if score.capped else ""),
    ]


def _three(number: str | None) -> str:
    return f"{float(number or 0):.3f}"


def _thinking(story: Story) -> Iterator[str]:
    if not story.curves:
        return
    yield _section("Accuracy against thinking", "thinking-head")
    yield from _figure(
        curve_chart(story.curves),
        "Each point is a setting of the sweep at the thinking tokens that were really used; bars are standard errors.",
    )
    rows = [
        (
            escape(curve.benchmark),
            escape(curve.of),
            escape(point.setting),
            f"{point.thinking_tokens:.0f}",
            f"{point.value:.3f}",
            f"{point.stderr:.3f}" if point.stderr is not None else "-",
        )
        for curve in story.curves
        for point in curve.points
    ]
    head = ("Benchmark", "Model", "Setting", "Thinking tokens", "Accuracy", "Standard error")
    yield from _details("Numbers", _table(head, rows, numbers=frozenset({3, 4, 5})))
    yield "</section>"


def _money(story: Story) -> Iterator[str]:
    yield _section("Money", "money-head")
    money = story.money
    if money is None:
        yield f"{_missing(story.money_note)}</section>"
        return
    if money.points:
        starts = [each.start for each in story.attempts if each.stage == "train"]
        caption = (
            "Each stage's total is the ledger's; within a stage it is spread over its attempts by GPU time. At the "
            "stop line training saves and stops, so that the rest pays for the stop and the evaluation."
        )
        if money.plan is None:
            caption += f" No plan is drawn: {money.plan_note}."
        yield from _figure(spend_chart(money, train_start=min(starts, default=None)), caption)
    else:
        yield _missing("No GPU was held yet.")
    if money.waste:
        caption = "Waste is paid time that trained and evaluated nothing, by reason."
        yield from _figure(waste_chart(money.spent_micro_usd, money.waste), caption)
    yield from _ledger(money)
    yield "</section>"


def _ledger(money: Money) -> Iterator[str]:
    total = CostShare(name="total", gpu_seconds=money.gpu_seconds, micro_usd=money.spent_micro_usd)
    rows = [_share(f"stage: {each.name}", each) for each in money.by_stage]
    rows += [_share("total", total), *(_share(f"waste: {each.name}", each) for each in money.waste)]
    yield from _table(("Ledger", "GPU-seconds", "GPU-hours", "Dollars"), rows, numbers=frozenset({1, 2, 3}))
    if money.price_micro_usd is not None:
        source = f" ({money.price_source})" if money.price_source else ""
        kept = usd_display(money.lines.reserve)
        yield (
            f"<p class='soft'>{usd_display(money.price_micro_usd)} per GPU-hour{escape(source)}; "
            f"kept for the evaluation: {kept}.</p>"
        )


def _share(name: str, share: CostShare) -> list[str]:
    return [escape(name), str(share.gpu_seconds), hours_text(share.gpu_seconds), usd_display(share.micro_usd)]


def _loss(story: Story) -> Iterator[str]:
    yield _section("Training", "loss-head")
    if story.losses:
        resumed = [each.start_step for each in story.attempts if each.start_step]
        caption = "Mean loss per trained token of each optimizer step."
        yield from _figure(loss_chart(story.losses, resumed_at=resumed), caption)
    else:
        yield _missing(story.losses_note)
    yield "</section>"


def _attempts(story: Story) -> Iterator[str]:
    if not story.attempts:
        return
    yield _section("Attempts", "attempts-head")
    rows = [
        (
            f"{escape(each.stage)} {each.number}",
            _stamp(each.start),
            span(max(0, (each.end or story.made_at) - each.start)),
            f"{each.start_step or 0} to {each.end_step}" if each.end_step is not None else "-",
            f"{escape(each.result)}<br><small>{escape(each.message)}</small>" if each.message else escape(each.result),
        )
        for each in story.attempts
    ]
    yield from _table(("Attempt", "Began", "Took", "Steps", "Result"), rows, numbers=frozenset({0, 1, 2, 3}))
    yield "</section>"


def _card(story: Story) -> Iterator[str]:
    yield _section("Run card", "card-head")
    rows = [(escape(name), f"<code>{escape(value)}</code>") for name, value in story.facts]
    if rows:
        yield from _table(("What", "Value"), rows)
    if story.card:
        text = escape(json.dumps(story.card, indent=1, ensure_ascii=False))
        yield from _details("Everything, to replay it", iter([f"<pre>{text}</pre>"]))
    yield "</section>"


def _details(summary: str, inside: Iterator[str]) -> Iterator[str]:
    yield f"<details><summary>{escape(summary)}</summary>"
    yield from inside
    yield "</details>"
