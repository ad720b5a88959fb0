"""Which differences of a run are faults of their own, and what causes each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from ...trees import nearest
from ..diagnosis import ANOTHER, CAUSES
from ..report import STAGES, Cause, Divergence
from ._context import Context
from ._results import Found, explained, owner

# Stages whose leaves may each have a cause of their own.
_BY_LEAF = ("parameters", "hyperparameters", "update", "state", "averages", "buffers", "data")
# Where the same cause shows in two stages.
_PLACES = {"state": "update"}
_OTHER_CLIPPING = ("clip-kind", "clip-per-group")
_ONCE_MORE = "differs once more, beyond what the cause above explains"
# Causes after which nothing can be compared.
_LAST = ("not-finite", "not-repeatable")
_MOST = 24  # leaves that are diagnosed one by one
_IN_VAIN = 2
_ALIKE = 2  # of leaves of one kind, so many are asked first


def parted(
    found: Sequence[Divergence], accept: Collection[str]
) -> tuple[tuple[Divergence, ...], tuple[Divergence, ...]]:
    """Return what counts, and what is accepted: all of its causes are."""

    def is_accepted(one: Divergence) -> bool:
        causes = () if one.cause is None else (one.cause, *one.cause.also)
        return bool(causes) and all(cause.name in accept for cause in causes)

    apart = {taken: tuple(d for d in found if is_accepted(d) is taken) for taken in (False, True)}
    return apart[False], apart[True]


def checked_causes(accept: Iterable[str] | None) -> frozenset[str]:
    """Return the names of causes that are accepted; refuse what is no cause's name."""
    names = [accept] if isinstance(accept, str) else list(accept or ())
    for name in names:
        if name not in CAUSES:
            raise ValueError(
                f"accept: {name!r} is no cause of jaxopt_port.verify.CAUSES"
                f"{nearest(str(name), list(CAUSES))}"
            )
    if isinstance(accept, str):
        raise TypeError(f"accept takes several names: accept=[{accept!r}]")
    return frozenset(names)


def findings(context: Context) -> tuple[Divergence, ...]:
    """Return the divergences that no earlier one explains, in order, each with its cause."""
    order = list(STAGES)

    def place(found: Found) -> tuple[int, int]:
        return found.divergence.step, order.index(found.divergence.stage)

    told: list[Divergence] = []
    seen: set[tuple[str, str]] = set()
    said: set[tuple[str, tuple[str, str] | None]] = set()
    moments: set[str] = set()  # leaves whose state has a cause of its own
    later: list[Divergence] = []
    for _, group in itertools.groupby(sorted(context.results.found, key=place), key=place):
        fresh = [f for f in group if not explained(f.divergence.stage, f.divergence.leaf, seen)]
        seen |= {(f.divergence.stage, owner(f.divergence.leaf)) for f in fresh}
        for one in _told(context, sorted(fresh, key=lambda f: -f.excess)):
            key = (_PLACES.get(one.stage, one.stage), _said(one.cause))
            # A leaf of zeros, or a moment, shows the same cause some steps later, or sooner.
            if one.stage == "state" and one.cause is not None:
                moments.update(map(owner, one.leaves))
            if one.message == _ONCE_MORE:
                later.append(one)
            elif not (_follows(one, moments) or (one.cause is not None and key in said)):
                told.append(one)
                said.add(key)
        if context.lacking or any(d.cause and d.cause.name in _LAST for d in told):
            break  # nothing after it can be compared
    for one in later:  # which another leaf may have shown before, and better
        key = (_PLACES.get(one.stage, one.stage), _said(one.cause))
        if key not in said:
            told.append(one)
            said.add(key)
    return tuple(sorted(_by_one_clipping(told), key=lambda d: d.step))


def _by_one_clipping(told: list[Divergence]) -> list[Divergence]:
    """Let leaves that seem not to be clipped go with others that show how they are, at that step.

    Where no number of a leaf is beyond a limit, or its own norm is not, it is as if not clipped.
    """
    named = [(d, "" if d.cause is None else d.cause.name) for d in told]
    other = next((d for d, name in named if name in _OTHER_CLIPPING), None)
    if other is None:
        return told
    alike = [d for d, name in named if name == "clip-missing"
             and (d.step, d.stage) == (other.step, other.stage)]  # fmt: skip
    leaves = tuple(dict.fromkeys(leaf for d in (*alike, other) for leaf in d.leaves))
    whole = dataclasses.replace(other, leaves=leaves)
    return [whole if d is other else d for d, name in named if name != "clip-missing"]


def _follows(one: Divergence, moments: set[str]) -> bool:
    """Whether what was told before explains a leaf's update, too."""
    if one.stage != "update":
        return False
    return one.cause is None and set(one.leaves) <= moments


def _told(context: Context, found: Sequence[Found]) -> Iterator[Divergence]:
    """Yield what differs at one step and stage, leaves of one cause together."""
    if not found:
        return
    leaves = tuple(dict.fromkeys(f.divergence.leaf for f in found))
    stage = found[0].divergence.stage
    if stage not in _BY_LEAF:
        cause = _cause(context, found[0])
        yield dataclasses.replace(found[0].divergence, cause=cause, leaves=leaves)
        yield from _later(found[0])
        return
    causes: dict[int, Cause | None] = {}
    for i in _asked(context, found):
        causes[i] = _cause(context, found[i])
        if len(causes) == _IN_VAIN and not any(causes.values()):
            break  # a search in vain is dear
    if len({_said(cause) for cause in causes.values()}) > 1:
        causes |= {
            i: _cause(context, found[i]) for i in range(min(_MOST, len(found))) if i not in causes
        }
    causes = _by_one_schedule(causes)
    clusters: dict[tuple[str, str] | None, list[int]] = {}
    for i in range(len(found)):
        key = _said(causes.get(i))
        # What has no cause of its own, or was not asked for one, goes with the first.
        clusters.setdefault(key if key else next(iter(clusters), None), []).append(i)
    unnamed = clusters.pop(None, [])
    if not clusters:
        clusters[None] = unnamed
    elif unnamed:
        next(iter(clusters.values())).extend(unnamed)
    for members in clusters.values():
        lead = min((i for i in members if causes.get(i)), default=members[0])
        own = tuple(dict.fromkeys(found[i].divergence.leaf for i in sorted(members)))
        yield dataclasses.replace(
            found[min(members) if causes.get(min(members)) else lead].divergence,
            cause=causes.get(lead), leaves=own,
        )  # fmt: skip
        yield from _later(found[lead])


def _by_one_schedule(causes: dict[int, Cause | None]) -> dict[int, Cause | None]:
    """Let leaves that show another schedule, and no more, go with one that shows the same rates."""
    rates = {i: cause.message.partition(": at step")[2] for i, cause in causes.items() if cause}
    vague = {i for i, cause in causes.items() if cause and cause.message.startswith(ANOTHER)}
    sharp = {
        rates[i]: cause
        for i, cause in reversed(causes.items())
        if cause and rates[i] and i not in vague
    }
    return {i: sharp.get(rates[i], cause) if i in vague else cause for i, cause in causes.items()}


def _asked(context: Context, found: Sequence[Found]) -> list[int]:
    """Return which leaves are asked first: some of each group and of each number of axes."""
    counts: dict[object, int] = {}
    asked = []
    shapes = dict(zip(context.names.paths, context.names.params, strict=True))
    for i, one in enumerate(found):
        path = owner(one.divergence.leaf)
        axes = len(shapes[path].shape) > 1 if path in shapes else False
        kind = (context.evidence.group_of(path), axes, one.divergence.message if
                one.divergence.stage == "hyperparameters" else "")  # fmt: skip
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= _ALIKE:
            asked.append(i)
    return asked


def _cause(context: Context, found: Found) -> Cause | None:
    """Return what explains it. A search that fails costs the name, not the report."""
    if found.diagnosis is None:
        return None
    try:
        with np.errstate(all="ignore"):  # what is tried may be anything
            return found.diagnosis()
    except Exception as error:
        at = found.divergence
        context.notes.append(
            f"the search for the cause of {at.stage} of {at.leaf} failed, which is a fault of this "
            f"library ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}); the place "
            "is right all the same"
        )
        return None


def _said(cause: Cause | None) -> tuple[str, str] | None:
    return None if cause is None else (cause.name, cause.message.partition(": at step")[0])


def _later(found: Found) -> Iterator[Divergence]:
    """Yield what differs later in the same leaf, once the first cause is allowed for."""
    later: list[tuple[int, Cause]] = getattr(found.diagnosis, "later", [])
    for step, cause in later:
        yield dataclasses.replace(found.divergence, step=step, message=_ONCE_MORE, cause=cause)
