"""Draws accuracy against thinking tokens as an SVG picture, by hand: a model card needs no plotting library.

Invariant: the same curves give the same bytes, so that publishing again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 32, 56
_COLOURS = ("#0b6e99", "#c4554d", "#448361", "#9065b0", "#d9730d", "#337ea9")
_STEPS = (1, 2, 5, 10)
_TICKS = 5


def scaling_plot(curves: Sequence[Mapping[str, Any]]) -> str | None:
    """The picture of the curves of ``results.json``; None where there is none to draw."""
    drawn = [each for each in curves if len(each.get("points", ())) > 1]
    if not drawn:
        return None
    most = max(point["thinking_tokens"] for each in drawn for point in each["points"])
    step = _nice(most / _TICKS)
    end = step * max(1, -(-most // step))
    parts = [_frame(end, step)]
    parts += [_curve(each, colour=_COLOURS[index % len(_COLOURS)], end=end) for index, each in enumerate(drawn)]
    parts += [_legend(each, index) for index, each in enumerate(drawn)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "".join(parts) + "</svg>\n"
    )


def _nice(value: float) -> float:
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    return next((scale * each for each in _STEPS if scale * each >= value), scale * 10)


def _x(tokens: float, end: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * tokens / end


def _y(value: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - value)


def _frame(end: float, step: float) -> str:
    lines = []
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        lines.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>\n'
        )
    tick = 0.0
    while tick <= end:
        x = _x(tick, end)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 20}" text-anchor="middle">{tick:,.0f}</text>\n')
        tick += step
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    lines.append(
        f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">thinking tokens, mean of an answer</text>\n'
    )
    return "".join(lines)


def _curve(curve: Mapping[str, Any], *, colour: str, end: float) -> str:
    points = sorted(curve["points"], key=lambda each: (each["thinking_tokens"], each["value"]))
    places = [(_x(each["thinking_tokens"], end), _y(each["value"]), each) for each in points]
    dash = ' stroke-dasharray="5 4"' if curve.get("of") == "base" else ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>\n']
    for x, y, each in places:
        low, high = _y(max(0.0, each["value"] - each["stderr"])), _y(min(1.0, each["value"] + each["stderr"]))
        title = f"{each['setting']}: {100 * each['value']:.1f} % ± {100 * each['stderr']:.1f}"
        parts.append(
            f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(title)}</title></circle>\n'
        )
    return "".join(parts)


def _legend(curve: Mapping[str, Any], index: int) -> str:
    colour = _COLOURS[index % len(_COLOURS)]
    words = f"{curve['benchmark']}{' (base model)' if curve.get('of') == 'base' else ''}"
    x, y = _LEFT + 8 + 180 * (index % 3), 14 + 14 * (index // 3)
    square = f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
    return f'{square}<text x="{x + 16}" y="{y}">{escape(words)}</text>\n'
