"""Recurrent layers in other ways than torch's call has them: gates, direction, states."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from ._calls import Call, Way

_GATES = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "new")}
_ALL = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def recurrent_ways() -> Iterator[Way]:
    """Yield what is tried of recurrent layers, the likeliest first."""
    for name, gates in _GATES.items():
        for order in itertools.permutations(range(len(gates))):
            if list(order) == sorted(order):
                continue
            there = ", ".join(gates[order.index(k)] for k in range(len(gates)))
            yield Way(
                "recurrence", (name,), _weights(_in_order(order)),
                f"your side takes the gates of the {name.upper()}'s weights in the order {there}; "
                f"torch's is {', '.join(gates)}",
                "take the gates in torch's order, or rearrange the rows when they are imported",
                everywhere=True,
            )  # fmt: skip
    yield Way(
        "recurrence", ("gru",), _weights(lambda parts: [parts[0], -parts[1], parts[2]]),
        "your side's update gate keeps the new state where torch's keeps the old one",
        "h = (1 - z) * n + z * h, as torch has it",
    )  # fmt: skip
    yield Way(
        "recurrence", ("lstm",), _weights(_more_to_forget, weights=False),
        "your side adds 1 to the forget gate; torch does not",
        "leave the bias of 1 out: torch's bias has what there is",
    )  # fmt: skip
    for which, words in ((2, "bias_ih"), (3, "bias_hh")):
        yield Way(
            "left-out", _ALL, _without(which),
            f"your side leaves {words} of a recurrent layer out",
            "torch has two biases for each gate: add both",
        )  # fmt: skip
    yield Way(
        "recurrence", _ALL, _backwards,
        "your side goes through the sequence from its end; torch from its beginning",
        "leave reverse=True out (and keep_order=True where only one direction is reversed)",
    )  # fmt: skip
    yield Way(
        "recurrence", _ALL, _along_the_batch,
        "your side takes the batch's axis for the time's",
        "give time_major as torch's batch_first has it: batch_first=True is time_major=False",
    )  # fmt: skip
    yield Way(
        "recurrence", _ALL, _swapped,
        "your side joins backward and forward outputs; torch forward and backward",
        "join the outputs in torch's order",
    )  # fmt: skip
    yield Way(
        "recurrence", _ALL, _from_zero,
        "your side begins with a state of zeros; torch with the one that it is given",
        "give the layer torch's first state (initial_carry)",
    )  # fmt: skip
    yield Way(
        "recurrence", ("lstm",), lambda call: _states(call, lambda h, c: (c, h)),
        "your side takes the cell's state for the hidden one",
        "torch's h_n is the second of Flax's carry (c, h)",
    )  # fmt: skip
    for name, other in (("rnn_tanh", "rnn_relu"), ("rnn_relu", "rnn_tanh")):
        yield Way(
            "activation", (name,), _called(other),
            f"your side has {other[4:]} where torch has {name[4:]}", "use torch's activation",
        )  # fmt: skip


def _place(call: Call) -> int:
    """Return where the weights stand; a packed sequence has the batches' sizes before the state."""
    sizes = call.args[1]
    return 3 if hasattr(sizes, "is_floating_point") and not sizes.is_floating_point() else 2


def _numbered(call: Call) -> list[tuple[int, Any]]:
    """Return the weights, each with its number in its layer: the last projects, if there is one."""
    at = _place(call)
    given, _, layers, _, _, both = call.args[at : at + 6]
    step = len(given) // (layers * (2 if both else 1))
    return [(i % step, w) for i, w in enumerate(given)]


def _with_weights(call: Call, weights: list[Any]) -> Any:
    at = _place(call)
    return call.function(*call.args[:at], weights, *call.args[at + 1 :], **call.options)


def _weights(
    change: Callable[[list[Any]], list[Any]], weights: bool = True
) -> Callable[[Call], Any]:
    """Change the gates' rows of all weights and biases, or of each layer's first bias alone."""

    def changed(call: Call) -> Any:
        import torch

        biases = call.args[_place(call) + 1]
        if not weights and not biases:
            return None
        gates = len(_GATES[call.name])
        changes = range(4 if biases else 2) if weights else (2,)
        made = [
            torch.cat(change(list(w.chunk(gates)))) if which in changes else w
            for which, w in _numbered(call)
        ]
        return _with_weights(call, made)

    return changed


def _in_order(order: tuple[int, ...]) -> Callable[[list[Any]], list[Any]]:
    return lambda parts: [parts[k] for k in order]


def _more_to_forget(parts: list[Any]) -> list[Any]:
    return [parts[0], parts[1] + 1, *parts[2:]]


def _without(which: int) -> Callable[[Call], Any]:
    """Leave one of the two biases of each layer out."""

    def changed(call: Call) -> Any:
        at = _place(call)
        if not call.args[at + 1]:
            return None
        made = [w * 0 if i == which else w for i, w in _numbered(call)]
        return _with_weights(call, made)

    return changed


def _batch_first(call: Call) -> bool:
    return bool(call.args[8]) if len(call.args) > 8 else False


def _backwards(call: Call) -> Any:
    if _place(call) == 3 or call.args[7]:
        return None
    time = 1 if _batch_first(call) else 0
    output, *states = call.again(call.args[0].flip(time))
    return (output.flip(time), *states)


def _along_the_batch(call: Call) -> Any:
    if _place(call) == 3 or call.args[0].ndim != 3:
        return None
    first = not _batch_first(call)
    size = call.args[0].shape[0 if first else 1]
    states = call.args[1] if call.name == "lstm" else (call.args[1],)
    if any(bool(h.any()) for h in states):
        return None
    begun = [h.new_zeros(h.shape[0], size, h.shape[2]) for h in states]
    given = begun if call.name == "lstm" else begun[0]
    return call.function(call.args[0], given, *call.args[2:8], first, **call.options)


def _swapped(call: Call) -> Any:
    import torch

    if not call.args[7]:
        return None
    output, *states = call.again(*call.args)
    return (torch.cat(output.chunk(2, -1)[::-1], -1), *states)


def _from_zero(call: Call) -> Any:
    at = _place(call) - 1
    given = call.args[at]
    states = given if call.name == "lstm" else (given,)
    if not any(bool(h.any()) for h in states):
        return None
    begun = [h * 0 for h in states]
    zero = begun if call.name == "lstm" else begun[0]
    return call.function(*call.args[:at], zero, *call.args[at + 1 :], **call.options)


def _states(call: Call, change: Callable[..., tuple[Any, ...]]) -> Any:
    output, *states = call.again(*call.args)
    return (output, *change(*states))


def _called(other: str) -> Callable[[Call], Any]:
    """Call another of torch's recurrent layers."""

    def changed(call: Call) -> Any:
        from torch import _VF

        return getattr(_VF, other)(*call.args, **call.options)

    return changed
