"""The words and tables of the HTML report; all that comes from the user is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from ...trees import listed
from ._report import STAGES, Distance, Divergence, Report, StageResult
from ._svg import LEVELS, MOST_GROUPS, MOST_LEAVES, curves, heat_map
from ._wording import (
    FIGURES,
    by_severity,
    compared,
    exact,
    figures,
    not_compared,
    number,
    stage_verdict,
    steps,
    subtitle,
    to_do,
)

# What is shown, and whether it is a figure.
_Cell = tuple[str, bool]


_STAGE_COLUMNS = ("stage", "verdict", "leaves", "steps", "worst leaf", *FIGURES)
_LEAF_COLUMNS = ("leaf", "in torch", "verdict", *FIGURES, "worst step")


def sections(report: Report) -> str:
    """Return all between the page's ``<main>`` and ``</main>``."""
    parts = [
        _verdict(report),
        _to_do(report),
        "" if report.first is None else _divergence(report.first),
        _curves(report),
        _maps(report),
        _stages(report),
        _notes(report),
        _environment(report),
    ]
    return "\n".join(part for part in parts if part)


def _verdict(report: Report) -> str:
    first = report.first
    if first is None:
        word, sentence = "PASSED", "The same training"
    else:
        word = "DIFFERS"
        sentence = (
            f"at step {first.step}, {escape(first.stage)} of <code>{_breaking(first.leaf)}</code>"
        )
    return (
        f'<header class="verdict"><p class="case">{_breaking(report.name)}</p>'
        f"<h1>{word}</h1><p>{sentence}</p>"
        f'<p class="subtitle">{escape(subtitle(report))}</p></header>'
    )


def _to_do(report: Report) -> str:
    lines = to_do(report)
    if not lines:
        return ""
    items = "".join(f"<li><b>{_breaking(at)}</b>: {escape(what)}</li>" for at, what in lines)
    title = f"{len(lines)} faults in this run; mend them in this order"
    return _section("to-do", title, f"<ol>{items}</ol>", "card")


def _divergence(first: Divergence) -> str:
    cause, facts = first.cause, []
    if cause is None:
        lead = "<p>No likely cause was found.</p>"
    else:
        lead = f'<p class="cause">{escape(cause.message)}</p>'
        if cause.remedy:
            lead += f'<p class="remedy"><b>To mend it</b> {escape(cause.remedy)}</p>'
        if cause.unexplained > 0:
            facts.append(("Unexplained", f"{number(cause.unexplained)} of the difference"))
    facts.insert(0, ("Difference", escape(first.message)))
    if first.why_not_rounding:
        facts.append(("No rounding", escape(first.why_not_rounding)))
    facts.append(("Here", f"<code>{_breaking(first.leaf)}</code>"))
    if first.torch_name:
        facts.append(("In torch", f"<code>{_breaking(first.torch_name)}</code>"))
    facts.append(("Distance", _distance(first.distance, first.bound)))
    if len(first.leaves) > 1:
        facts.append((f"{len(first.leaves)} leaves", _leaves(first.leaves)))
    items = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in facts)
    title = "Likely cause" if cause else "The first difference"
    return _section(
        "divergence", title, f"{lead}<dl>{items}</dl>{_elements(first)}", "card divergence"
    )


def _distance(d: Distance, bound: float) -> str:
    text = (
        f"{number(d.ulps_max)} ulps at most, {number(d.ulps_p99)} at the 99th percentile, "
        f"{number(d.ulps_mean)} in the mean; relative {number(d.relative)}; absolute "
        f"{number(d.absolute)}, where rounding explains {number(bound)}; cosine "
        f"{number(d.cosine, 6)}"
    )
    return text + (f"; {d.mismatched} NaN or infinite on one side" if d.mismatched else "")


def _leaves(leaves: tuple[str, ...]) -> str:
    return listed([f"<code>{_breaking(leaf)}</code>" for leaf in leaves], MOST_LEAVES)


def _elements(first: Divergence) -> str:
    if not first.elements:
        return ""
    rows: list[list[_Cell]] = [
        [
            (f"[{', '.join(map(str, e.index))}]", False),
            (exact(e.torch), True),
            (exact(e.yours), True),
            (number(e.yours - e.torch), True),
        ]
        for e in first.elements
    ]
    columns = ("element", "torch", "yours", "yours − torch")
    return _table("The elements that are furthest apart", columns, rows)


def _curves(report: Report) -> str:
    held, parts = report.curves, []
    drawn = curves([("torch", held.loss_torch), ("yours", held.loss_yours)], "Loss, by step")
    if drawn:
        broken = "".join(
            _first_not_finite(side, values)
            for side, values in (("torch", held.loss_torch), ("yours", held.loss_yours))
        )
        parts.append(_section("loss", "Loss", f"{drawn}{_KEY}{broken}"))
    lines = [
        (f"{side} g{group % 4}", values)
        for side, groups in (("torch", held.lr_torch), ("yours", held.lr_yours))
        for group, values in enumerate(groups[:MOST_GROUPS])
    ]
    drawn = curves(lines, "Learning rates, by step", zero=True)
    if drawn:
        more = len(held.lr_torch) - MOST_GROUPS
        said = f'<p class="note">{more} more groups are not drawn.</p>' if more > 0 else ""
        parts.append(_section("lr", "Learning rate, by group", f"{drawn}{_KEY}{said}"))
    return "".join(parts)


def _key(kind: str, words: str) -> str:
    shape = '<path d="M0 0h16v16h-16z"' if kind.startswith("u") else '<circle cx="8" cy="8"'
    return f'<svg viewBox="0 0 16 16" aria-hidden="true">{shape} class="{kind}"/></svg> {words}'


_KEY = (
    f'<p class="note key">{_key("torch", "torch, the broad line")} · {_key("yours", "yours")}</p>'
)


def _first_not_finite(side: str, values: list[float]) -> str:
    for step, value in enumerate(values):
        if not math.isfinite(value):
            return (
                f'<p class="note">The loss of {side} is {number(value)} at step {step}; '
                "what is not finite is not drawn.</p>"
            )
    return ""


def _maps(report: Report) -> str:
    first, parts = report.first, []
    for name, stage in report.stages.items():
        if not any(leaf.ulps for leaf in stage.leaves):
            continue
        here = first is not None and first.stage == name
        drawn, said = heat_map(stage, first.step if first is not None and here else None)
        parts.append(
            f"<details{' open' if here else ''}><summary><b>{name}</b>{_marked(stage)}</summary>"
            f'{drawn}<p class="note">{said}</p></details>'
        )
    if not parts:
        return ""
    bounds = [f"up to {number(bound)}" for bound in LEVELS[1:]]
    words = ["0", *bounds, "more", "NaN or infinity on one side only"]
    key = " · ".join(_key(f"u{level}", text) for level, text in enumerate(words))
    body = (
        '<p class="note key">Units in the last place of the run\'s dtype, the largest of each '
        f"leaf: {key}. ✗ marks a leaf that differs by more than rounding, the dashed line the "
        f"first such step.</p>{''.join(parts)}"
    )
    return _section("map", "Every leaf, every step", body)


def _marked(stage: StageResult) -> str:
    verdict = stage_verdict(stage)
    return f' <span class="{verdict}">{verdict}</span>'


def _stages(report: Report) -> str:
    rows: list[list[_Cell]] = [
        [
            (stage.stage, False),
            (stage_verdict(stage), False),
            (str(len(stage.leaves)), True),
            (str(stage.steps), True),
            (worst.leaf, False),
            *((figure, True) for figure in figures(worst)),
        ]
        for stage, worst in compared(report)
    ]
    body = _table("The stages, each with its worst leaf", _STAGE_COLUMNS, rows) if rows else ""
    skipped = not_compared(report).items()
    if skipped:
        items = (f"{escape(', '.join(names))}: {escape(why)}" for why, names in skipped)
        body += f"<p>Not compared:</p>{_list(items)}"
    tables = [_leaf_table(stage) for stage in report.stages.values() if stage.leaves]
    if tables:
        body += f"<h3>Leaf by leaf</h3>{''.join(tables)}"
    return _section("stages", "What was compared", body) if body else ""


def _leaf_table(stage: StageResult) -> str:
    shown = by_severity(stage.leaves)[:MOST_LEAVES]
    rows: list[list[_Cell]] = [
        [
            (leaf.leaf, False),
            (leaf.torch_name, False),
            ("same" if leaf.ok else "differs", False),
            *((figure, True) for figure in figures(leaf)),
            (str(leaf.worst_step), True),
        ]
        for leaf in shown
    ]
    count = f"{len(stage.leaves)} {'leaf' if len(stage.leaves) == 1 else 'leaves'}"
    if len(shown) < len(stage.leaves):
        count += f", the worst {len(shown)} shown"
    return (
        f"<details{'' if stage.ok else ' open'}><summary><b>{escape(stage.stage)}</b>"
        f'{_marked(stage)} <span class="note">'
        f"{escape(STAGES[stage.stage])} · {count} · {steps(stage.steps)}</span></summary>"
        f"{_table(f'{stage.stage}, leaf by leaf', _LEAF_COLUMNS, rows)}</details>"
    )


def _notes(report: Report) -> str:
    return _section("notes", "Notes", _list(map(escape, report.notes))) if report.notes else ""


def _environment(report: Report) -> str:
    facts = "".join(
        f"<dt>{_breaking(key)}</dt><dd>{_breaking(value)}</dd>"
        for key, value in report.environment.items()
    )
    return _section("environment", "Environment", f"<dl>{facts}</dl>") if facts else ""


def _section(name: str, title: str, body: str, style: str = "card") -> str:
    return (
        f'<section class="{style}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>{body}</section>'
    )


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _table(caption: str, columns: tuple[str, ...], rows: list[list[_Cell]]) -> str:
    numeric = [figure for _, figure in rows[0]] if rows else [False] * len(columns)
    head = "".join(
        f'<th scope="col"{_numeric(n)}>{column}</th>'
        for column, n in zip(columns, numeric, strict=True)
    )
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: _Cell) -> str:
    text, figure = cell
    verdict = f' class="{text}"' if text in ("same", "differs") else ""
    return f"<td{_numeric(figure) or verdict}>{escape(text)}</td>"


def _numeric(figure: bool) -> str:
    return ' class="n"' if figure else ""


def _breaking(path: str) -> str:
    """Return the text escaped; a narrow window breaks it after a slash or a dot."""
    return escape(path).replace("/", "/<wbr>").replace(".", ".<wbr>")
