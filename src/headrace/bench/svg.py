"""Line plots as SVG text: a logarithmic x axis with the measured points as ticks, a y axis from zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, BOTTOM = 64, 20, 52
LEGEND_TOP, LEGEND_ROW, LEGEND_COLUMNS = 40, 18, 2
COLOURS = ("#d1495b", "#00798c", "#edae49", "#66a182", "#2e4057")
INK, GRID = "#333333", "#dddddd"

Line = Mapping[float, float]
"""y by x."""


@dataclass(frozen=True, slots=True)
class Plot:
    """`lines` by their names. Every x is above zero."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Line]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    low_x: float
    high_x: float
    high_y: float
    top: float
    """Where the highest y lies; above it are title and legend."""

    def x(self, value: float) -> float:
        if self.low_x == self.high_x:
            return (LEFT + WIDTH - RIGHT) / 2
        share = math.log(value / self.low_x) / math.log(self.high_x / self.low_x)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.high_y * (HEIGHT - self.top - BOTTOM)


def line_plot(title: str, x_label: str, y_label: str, lines: Mapping[str, Line]) -> str:
    """The plot of `lines`, by their names. Every x is above zero."""
    return line_plots([Plot(title, x_label, y_label, lines)])


def line_plots(plots: Sequence[Plot]) -> str:
    """Plots below each other in one picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(plots)}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT * len(plots)}" fill="white"/>',
    ]
    for number, plot in enumerate(plots):
        parts += [f'<g transform="translate(0 {number * HEIGHT})">', *_plot(plot), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _plot(plot: Plot) -> list[str]:
    lines = plot.lines
    ticks = sorted({x for line in lines.values() for x in line})
    highest = max(y for line in lines.values() for y in line.values()) or 1.0
    step = _round_step(highest / 5)
    top = LEGEND_TOP + LEGEND_ROW * math.ceil(len(lines) / LEGEND_COLUMNS)
    scale = _Scale(ticks[0], ticks[-1], step * math.ceil(highest / step), top)
    parts = [
        _text(WIDTH / 2, 20, plot.title, size=14, weight="bold"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, plot.x_label),
        _text(16, (top + HEIGHT - BOTTOM) / 2, plot.y_label, turned=True),
        *_grid(scale, ticks, step),
    ]
    for index, (name, line) in enumerate(lines.items()):
        parts += _line(scale, line, COLOURS[index % len(COLOURS)])
        parts += _legend(index, name, COLOURS[index % len(COLOURS)])
    return parts


def _round_step(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20, … at or above `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)


def _grid(scale: _Scale, ticks: Sequence[float], step: float) -> list[str]:
    bottom, parts = HEIGHT - BOTTOM, []
    for index in range(round(scale.high_y / step) + 1):
        y = scale.y(index * step)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{index * step:g}", anchor="end"))
    for tick in ticks:
        x = scale.x(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="{INK}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:g}"))
    return parts


def _line(scale: _Scale, line: Line, colour: str) -> list[str]:
    points = [(scale.x(x), scale.y(y)) for x, y in sorted(line.items())]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _legend(index: int, name: str, colour: str) -> list[str]:
    row, column = divmod(index, LEGEND_COLUMNS)
    x, y = LEFT + column * (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS, LEGEND_TOP + row * LEGEND_ROW
    return [
        f'<line x1="{x:.1f}" x2="{x + 18:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
        _text(x + 24, y + 4, name, anchor="start"),
    ]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    size: int = 12,
    weight: str = "normal",
    turned: bool = False,
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"{turn}>'
        f"{escape(text)}</text>"
    )
