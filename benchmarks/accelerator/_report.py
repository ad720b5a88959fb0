"""A file of results from an accelerator, as Markdown: for the terminal and for the documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..speed._results import Measurement, Results


def markdown(results: Results) -> str:
    """Return what a run found, part by part; parts that it did not come to are left out."""
    sections = (_device, _primitives, _parity, _speed, _memory, _tests, _left_out)
    blocks = ["\n".join(lines) for section in sections if (lines := list(section(results)))]
    return "\n\n".join(blocks) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join(["---"] * left + ["---:"] * (len(head) - left)) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _device(results: Results) -> Iterator[str]:
    parts = results.parts
    yield f"{results.device} ({results.created[:10]})"
    if parts.get("rehearsal"):
        yield ""
        yield "No accelerator was found: a rehearsal with small shapes, whose times mean nothing."
    used = ", ".join(f"{k} {v:.0f} s" for k, v in parts["budget"]["used"].items())
    yield ""
    yield f"Time: {used}; of {parts['budget']['asked']:.0f} s."
    for part, why in parts["budget"]["cut"].items():
        yield f"Cut: {part}, {why}."


def _primitives(results: Results) -> Iterator[str]:
    rows = results.parts.get("primitives") or []
    sides = list(dict.fromkeys(row["side"] for row in rows))
    if not rows:
        return
    said = {(row["primitive"], row["side"]): _like(row) for row in rows}
    names = list(dict.fromkeys(row["primitive"] for row in rows))
    yield from _table(
        ["primitive", *sides],
        ([f"`{name}`", *(said.get((name, side), "") for side in sides)] for name in names),
        left=1 + len(sides),
    )
    numbers = {k: v for k, v in results.parts.get("numbers", {}).items() if k != "steps"}
    yield ""
    yield from (f"- {name}: {value:.2g}" for name, value in numbers.items())


def _like(row: dict[str, Any]) -> str:
    said: str = row["nearest"]
    return said + (f", but {row['differ']:.2g} by up to {row['ulps']} ulp" if row["differ"] else "")


def _parity(results: Results) -> Iterator[str]:
    """The worst of an optimizer's configurations, for each contender."""
    rows = results.parts.get("parity") or []
    if not rows:
        return
    pairs = list(dict.fromkeys((row["contender"], row["reference"]) for row in rows))
    worst: dict[tuple[str, str, int], dict[tuple[str, str], dict[str, Any]]] = {}
    counts: dict[tuple[str, str, int], set[str]] = {}
    for row in rows:
        key = (row["optimizer"], row["dtype"], row["steps"])
        seen = worst.setdefault(key, {})
        pair = (row["contender"], row["reference"])
        before = seen.get(pair)
        if before is None or (row["units"], row["differ"]) > (before["units"], before["differ"]):
            seen[pair] = row
        counts.setdefault(key, set()).add(row["item"])
    yield "Distance from torch on the same device, the worst of the configurations: units in the"
    yield "last place of a parameter's step, and the share of parameters that differ."
    yield ""
    yield from _table(
        ["optimizer", "dtype", "steps", "configurations", *(" from ".join(p) for p in pairs)],
        (
            [
                *(key[0], key[1], str(key[2]), str(len(counts[key]))),
                *(_far(seen.get(pair)) for pair in pairs),
            ]
            for key, seen in worst.items()
        ),
        left=2,
    )


def _far(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return "equal" if not row["differ"] else f"{row['units']:.3g} ({row['differ']:.1%})"


def _by_case(results: Results, suite: str) -> dict[str, dict[str, Measurement]]:
    cases: dict[str, dict[str, Measurement]] = {}
    for m in results.measurements:
        if m.suite == suite:
            cases.setdefault(m.case, {})[m.contender] = m
    return cases


def _speed(results: Results) -> Iterator[str]:
    copies = [m for m in results.measurements if m.suite == "bandwidth"]
    if copies:
        best = max(copies, key=lambda m: m.median)
        yield f"Bandwidth, {best.contender}: {best.median / 1e9:.0f} GB/s, read and written."
        yield ""
    for suite, title in (
        ("step", "One step, queued behind others: ms"),
        ("dispatch", "Until the call of a step returns: ms"),
        ("train", "One training step: ms"),
    ):
        cases = _by_case(results, suite)
        if not cases:
            continue
        contenders = list(dict.fromkeys(name for made in cases.values() for name in made))
        yield f"{title}."
        yield ""
        yield from _table(
            [suite, *contenders, *(["limit", "jp.step / limit"] if suite == "step" else [])],
            (
                [case, *(_ms(made.get(name)) for name in contenders), *_limit(suite, made)]
                for case, made in cases.items()
            ),
        )
        yield ""


def _ms(m: Measurement | None) -> str:
    return "" if m is None else f"{m.median * 1e3:.3g}"


def _limit(suite: str, made: dict[str, Measurement]) -> list[str]:
    if suite != "step":
        return []
    ours = made.get("jp.step")
    if ours is None or not ours.limit:
        return ["", ""]
    return [f"{ours.limit * 1e3:.3g}", f"{ours.median / ours.limit:.2f}"]


def _memory(results: Results) -> Iterator[str]:
    cases = _by_case(results, "memory")
    if cases:
        contenders = list(dict.fromkeys(name for made in cases.values() for name in made))
        yield "State, and what a step takes beyond what it is given: MiB."
        yield ""
        yield from _table(
            ["memory", *contenders],
            (
                [case, *("" if n not in made else _mib(made[n].median) for n in contenders)]
                for case, made in cases.items()
            ),
        )


def _mib(value: float) -> str:
    return f"{value / 2**20:.3g}"


def _tests(results: Results) -> Iterator[str]:
    tests = results.parts.get("tests")
    if tests:
        counts = ", ".join(f"{count} {kind}" for kind, count in tests["outcomes"].items())
        yield f"Tests: {counts or 'none ended'} (exit code {tests['exit']})."
        yield from (f"- {name}: {said}" for name, said in tests["not_passed"].items())


def _left_out(results: Results) -> Iterator[str]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for left in results.left_out:
        grouped.setdefault((left["contender"], left["why"]), []).append(left["case"])
    for (contender, why), cases in grouped.items():
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        yield f"Left out: {contender}, {cases[0]}{more}: {why}"
