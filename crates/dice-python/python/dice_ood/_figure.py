"""A report as a picture for notebooks: the rate of each detector on each set, and its interval, as SVG in the colours of the page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

_ROW, _CHARACTER, _PLOT, _TOP, _BOTTOM = 18, 6.5, 300, 22, 34


def intervals(rows: Sequence[dict[str, Any]], metric: str, title: str) -> str:
    """Dots at ``metric``, a fraction, with its interval where there is one: a line for each of `Report.rows`, under the name of its set."""
    sets = list(dict.fromkeys(row["ood"] for row in rows))
    lines = [line for name in sets for line in [name, *(row for row in rows if row["ood"] == name)]]
    left = 14 + _CHARACTER * max(len(row["detector"]) for row in rows)
    bottom = _TOP + _ROW * len(lines)

    def across(value: float) -> float:
        return left + _PLOT * value

    marks = [_text(left, 12, title, "start", 'font-weight="bold"')]
    for tick in range(0, 101, 20):
        x = across(tick / 100)
        marks.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="currentColor" stroke-opacity=".15"/>')
        marks.append(_text(x, bottom + 14, f"{tick} %", "middle"))
    for place, line in enumerate(lines):
        y = _TOP + _ROW * place + 9
        marks.append(_text(0, y + 4, line, "start", 'font-style="italic"') if isinstance(line, str) else _marked(line, metric, y, left, across))
    width, height = left + _PLOT + 24, bottom + _BOTTOM - 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="currentColor"><title>{html.escape(title)}</title>{"".join(marks)}</svg>'
    )


def _marked(row: dict[str, Any], metric: str, y: float, left: float, across: Any) -> str:
    value = row[metric]
    low, high = row.get(f"{metric}_low", value), row.get(f"{metric}_high", value)
    return (
        _text(left - 8, y + 4, row["detector"], "end")
        + f'<path d="M{across(low):.1f} {y}H{across(high):.1f}" stroke="currentColor" stroke-width="2" stroke-opacity=".5"/>'
        + f'<circle cx="{across(value):.1f}" cy="{y}" r="3.5"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(text)}</text>'
