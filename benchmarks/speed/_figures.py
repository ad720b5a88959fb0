"""Results as pictures: bars of times over the limit, and lines of cost over leaves and groups."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from ._results import Measurement, Results
from ._tables import amount
from ._targets import targets

_COLOURS = {
    "jp": "#1f6feb",
    "torch": "#d9822b",
    "optax": "#5c7f67",
    "nothing": "#999999",
}
_DASHES = ("solid", "dash", "dot", "dashdot")


def _colour(contender: str) -> str:
    for part, colour in _COLOURS.items():
        if part in contender or (part == "jp" and contender == "tx.update"):
            return colour
    return "#777777"


def _bars(results: Results) -> dict[str, list[Measurement]]:
    """Return the step suite's measurements of the models, by case."""
    found: dict[str, list[Measurement]] = {}
    for m in results.measurements:
        if m.suite == "step" and m.limit and not m.settings.get("model", "")[0].isdigit():
            found.setdefault(m.case, []).append(m)
    return {case: ms for case, ms in found.items() if len(ms) > 2}


_Lines = list[tuple[str, str, str, dict[str, list[tuple[float, float]]]]]


def _lines(results: Results) -> _Lines:
    """Return (title, axis, unit, points by contender) for each cost that grows with something."""
    wanted = [
        ("step", "leaves", "Adam step, small leaves", lambda m: "small leaves" in m.case),
        ("step", "parameters", "Adam step, 8 leaves", lambda m: "8 leaves of" in m.case),
        ("dispatch", "leaves", "Host time of a call", lambda m: True),
        ("groups", "groups", "SGD step, 400 leaves", lambda m: m.settings["leaves"] == 400),
        ("compile", "leaves", "Trace and compile", lambda m: True),
    ]
    found: _Lines = []
    for suite, axis, title, which in wanted:
        points: dict[str, list[tuple[float, float]]] = {}
        for m in results.measurements:
            adam = m.settings.get("optimizer", "Adam") == "Adam"
            if m.suite == suite and axis in m.settings and adam and which(m):
                points.setdefault(m.contender, []).append((m.settings[axis], m.median))
        points = {name: sorted(xy) for name, xy in points.items() if len(xy) > 1}
        if points:
            found.append((title, axis, "s", points))
    return found


def png(results: Results, file: Path) -> None:
    """Draw the results with Matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars, lines = _bars(results), _lines(results)
    count = sum(map(len, bars.values())) + len(bars)
    rows = -(-len(lines) // 2)
    height = 0.17 * count + 3.2 * rows + 1
    figure = plt.figure(figsize=(11, height), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=[max(1, 0.17 * count), max(1, 3.2 * rows)])
    if bars:
        axes = parts[0].subplots()
        place, furthest, ticks = 0.0, 1.0, []
        for case, ms in bars.items():
            ticks.append((place + (len(ms) - 1) / 2, case))
            for m in ms:
                limit = m.limit or 1.0
                ratio = m.median / limit
                axes.barh(place, ratio, color=_colour(m.contender), height=0.9)
                axes.plot([m.low / limit, m.high / limit], [place, place], color="black", lw=1)
                furthest = max(furthest, ratio)
                text = f"{m.contender} {ratio:.2f}"
                axes.text(
                    min(m.high / limit, 1.6 * ratio) * 1.06,
                    place,
                    text,
                    va="center",
                    size=6,
                    clip_on=True,
                )
                place += 1
            place += 1
        axes.axvline(1, color="black", lw=0.8)
        axes.set_xscale("log")
        axes.set_xlim(0.5, 4 * furthest)
        axes.invert_yaxis()
        axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks], size=8)
        axes.set_title("Optimizer step: time over the bandwidth limit (1: as fast as memory)")
    if lines:
        each = parts[1].subplots(rows, 2, squeeze=False).flat
        for axes, (title, axis, _, points) in zip(each, lines, strict=False):
            for name, xy in points.items():
                style = "-" if name in ("jp.step", "jp.SGD", "jp.Adam", "torch fused") else "--"
                axes.loglog(
                    *zip(*xy, strict=True), style, marker="o", ms=3, label=name, color=_colour(name)
                )
            axes.set(title=title, xlabel=axis, ylabel="seconds")
            axes.legend(fontsize=7)
            axes.grid(alpha=0.3)
        for axes in list(parts[1].axes)[len(lines) :]:
            axes.set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def page(results: Results) -> str:
    """Return an HTML page with figures that can be looked into; it needs nothing from outside."""
    import plotly.graph_objects as go

    figures: list[Any] = []
    bars = _bars(results)
    if bars:
        figure = go.Figure()
        contenders = dict.fromkeys(m.contender for ms in bars.values() for m in ms)
        for contender in contenders:
            chosen = [m for ms in bars.values() for m in ms if m.contender == contender]
            ratios = [m.median / (m.limit or 1) for m in chosen]
            figure.add_bar(
                name=contender,
                x=[m.case for m in chosen],
                y=ratios,
                marker_color=_colour(contender),
                customdata=[amount(m.median, m.unit) for m in chosen],
                hovertemplate="%{x}<br>%{y:.2f} of the limit, %{customdata}",
            )
        figure.add_hline(y=1, line_color="black")
        figure.update_yaxes(type="log", title="time / bandwidth limit")
        figure.update_layout(title="Optimizer step", barmode="group")
        figures.append(figure)
    for title, axis, _, points in _lines(results):
        figure = go.Figure(layout={"title": title})
        for i, (name, xy) in enumerate(points.items()):
            x, y = zip(*xy, strict=True)
            line = {"color": _colour(name), "dash": _DASHES[i % len(_DASHES)]}
            figure.add_scatter(name=name, x=x, y=y, mode="lines+markers", line=line)
        figure.update_xaxes(type="log", title=axis)
        figure.update_yaxes(type="log", title="seconds")
        figures.append(figure)
    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0) for i, figure in enumerate(figures)
    ]
    facts = {
        **results.machine,
        **{k: v for side in results.sides.values() for k, v in side.items()},
    }
    rows = "".join(
        f"<tr><td>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in facts.items()
    )
    goals = "".join(
        f"<tr><td>{html.escape(f.what)}<td>{f.ratio:.2f} {f.unit}<td>≤ {f.bound:.2f} {f.unit}"
        f"<td>{f.verdict}"
        for f in targets(results)
    )
    left_out = "".join(
        f"<tr><td>{html.escape(x['case'])}<td>{html.escape(x['contender'])}<td>"
        f"{html.escape(x['why'])}"
        for x in results.left_out
    )
    every = "".join(
        f"<tr><td>{html.escape(m.suite)}<td>{html.escape(m.case)}<td>{html.escape(m.contender)}"
        f"<td>{amount(m.median, m.unit)}<td>{amount(m.low, m.unit)} to {amount(m.high, m.unit)}"
        f"<td>{f'{m.median / m.limit:.2f}' if m.limit else ''}"
        f"<td>{'' if m.differs is None else f'{m.differs:.0e}'}"
        for m in results.measurements
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>jaxopt_port: speed, {results.created}</title>
<style>body{{font:15px system-ui;margin:2rem auto;max-width:75rem;padding:0 1rem}}
table{{border-collapse:collapse;font-size:13px}}td,th{{border-bottom:1px solid #ddd;
padding:.2rem .6rem;text-align:left}}</style>
<h1>Speed, {html.escape(results.created)}</h1>
<p><code>{html.escape(results.command)}</code></p>
<h2>Targets</h2><table><tr><th>ratio<th>found<th>target<th></tr>{goals}</table>
{"".join(drawn)}
<h2>Every figure</h2><table><tr><th>suite<th>case<th>contender<th>median<th>quartiles
<th>/ limit<th>differs</tr>{every}</table>
<h2>Left out</h2><table>{left_out}</table>
<h2>Machine</h2><table>{rows}</table></html>
"""
