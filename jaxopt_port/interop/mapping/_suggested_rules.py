"""Rename rules under which names that differ would be the same."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from ...trees import common_end
from ._matching import Problems

Rule = tuple[str, str]
_MOST_RULES, _TRIED, _LOOKED_AT = 4, 6, 200


def suggested_rules(
    problems: Problems, tried: Callable[[Sequence[Rule]], Problems]
) -> tuple[list[Rule], Problems]:
    """Return rules under which more fits, and what is then still wrong.

    Args:
        problems: of a matching without them.
        tried: matches with rules behind those that there are.
    """
    rules: list[Rule] = []
    while problems.lacking and problems.free and len(rules) < _MOST_RULES:
        outcomes = [(tried([*rules, rule]), rule) for rule in _candidates(problems)]
        after, rule = min(outcomes, key=lambda each: len(each[0]), default=(problems, ("", "")))
        if len(after) >= len(problems):
            break
        problems = after
        rules.append(rule)
    return rules, problems


def _candidates(problems: Problems) -> list[Rule]:
    """Return the rules that most tensors ask for, of equal ones those that are spelled alike."""
    found = Counter(rule for pair in _pairs(problems) for rule in _rules(*pair))
    return sorted(found, key=lambda rule: (-found[rule], -_likeness(*rule)))[:_TRIED]


def _pairs(problems: Problems) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the layer of each tensor without a leaf, and those of the leaves that it may be."""
    for tensor in problems.lacking[:_LOOKED_AT]:
        alike = [
            leaf.short.split("/")[:-1]
            for leaf in problems.free
            if leaf.shape in tensor.shapes
            and (leaf.short.rpartition("/")[2] == "bias") == tensor.torch_name.endswith("bias")
        ]
        yield tensor.path.split("/")[:-1], alike


def _rules(mine: list[str], others: list[list[str]]) -> set[Rule]:
    """Return what would make a layer's path each of the others, ends that are the same left out."""
    rules = set()
    for other in others:
        same = common_end(mine, other)
        before, after = mine[: len(mine) - same], other[: len(other) - same]
        beside = [each for each in others if each[:-1] == mine[:-1]]
        alike = _likeness(mine[-1:], other[-1:]) > (0.4 if other in beside else 0.6)
        likely = same or alike or others == [other] or beside == [other]
        if likely and before != after:
            rules.add(_rule(before, after))
    return rules


def _rule(before: list[str], after: list[str]) -> Rule:
    numbers = [part for part in before if part.isdigit()]
    if numbers and numbers == [part for part in after if part.isdigit()]:
        count = iter(range(1, len(numbers) + 1))
        pattern = [r"(\d+)" if part.isdigit() else re.escape(part) for part in before]
        after = [rf"\{next(count)}" if part.isdigit() else part for part in after]
    else:
        pattern = [re.escape(part) for part in before]
    return "^" + "".join(rf"{part}\." for part in pattern), "".join(f"{part}." for part in after)


def _likeness(a: Sequence[str], b: Sequence[str]) -> float:
    return difflib.SequenceMatcher(None, "".join(a), "".join(b)).ratio()
