"""Recurrent layers in other ways than torch's call has them: gates, direction, states."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ._calls import Call, Way

_GATES = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "new")}
_ALL = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _place(call: Call) -> int:
    """Return where the weights stand; a packed sequence has the batches' sizes before the state."""
    sizes = call.args[1]
    return 3 if hasattr(sizes, "is_floating_point") and not sizes.is_floating_point() else 2


def _states_of(call: Call, place: int) -> list[Any]:
    """Return the states that an LSTM is given in a pair, and others as they are."""
    given = call.args[place]
    return list(given) if call.name == "lstm" else [given]


def _begun_with(call: Call, place: int, states: list[Any], *rest: Any) -> Any:
    """Call it with other states, and with what comes after them."""
    given = states if call.name == "lstm" else states[0]
    return call.function(*call.args[:place], given, *rest, **call.options)


def _weights(change: Callable[[int, Any], Any], biased: bool = False) -> Callable[[Call], Any]:
    """Change weights and biases, each given its number in its layer: the last one may project.

    Args:
        change: of a number and its tensor.
        biased: whether there is nothing to change without biases.
    """

    def changed(call: Call) -> Any:
        at = _place(call)
        given, biases, layers, _, _, both = call.args[at : at + 6]
        if biased and not biases:
            return None
        step = len(given) // (layers * (2 if both else 1))
        gates = 4 if biases else 2
        made = [change(i % step, w) if i % step < gates else w for i, w in enumerate(given)]
        return call.function(*call.args[:at], made, *call.args[at + 1 :], **call.options)

    return changed


def _in_order(order: Sequence[int]) -> Callable[[int, Any], Any]:
    """Take the gates' rows in another order."""

    def change(_: int, w: Any) -> Any:
        import torch

        parts = w.chunk(len(order))
        return torch.cat([parts[k] for k in order])

    return change


def _turned(_: int, w: Any) -> Any:
    """Turn the sign of a GRU's update gate."""
    import torch

    reset, update, new = w.chunk(3)
    return torch.cat([reset, -update, new])


def _more_to_forget(number: int, w: Any) -> Any:
    import torch

    first, forget, *rest = w.chunk(4)
    return torch.cat([first, forget + 1, *rest]) if number == 2 else w


def _without(which: int) -> Callable[[Call], Any]:
    """Leave one of the two biases of each layer out."""
    return _weights(lambda number, w: w * 0 if number == which else w, biased=True)


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
    first, states = not _batch_first(call), _states_of(call, 1)
    if any(bool(h.any()) for h in states):
        return None
    size = call.args[0].shape[0 if first else 1]
    begun = [h.new_zeros(h.shape[0], size, h.shape[2]) for h in states]
    return _begun_with(call, 1, begun, *call.args[2:8], first)


def _swapped(call: Call) -> Any:
    import torch

    if not call.args[7]:
        return None
    output, *states = call.again(*call.args)
    return (torch.cat(output.chunk(2, -1)[::-1], -1), *states)


def _from_zero(call: Call) -> Any:
    at = _place(call) - 1
    states = _states_of(call, at)
    if not any(bool(h.any()) for h in states):
        return None
    return _begun_with(call, at, [h * 0 for h in states], *call.args[at + 1 :])


def _exchanged(call: Call) -> Any:
    output, hidden, cell = call.again(*call.args)
    return output, cell, hidden


def _called(other: str) -> Callable[[Call], Any]:
    """Call another of torch's recurrent layers."""

    def changed(call: Call) -> Any:
        from torch import _VF

        return getattr(_VF, other)(*call.args, **call.options)

    return changed


def _there(name: str, order: Sequence[int]) -> str:
    return ", ".join(_GATES[name][order.index(k)] for k in range(len(order)))


# What is tried of recurrent layers, the likeliest first.
RECURRENT_WAYS: tuple[Way, ...] = (
    *(Way("recurrence", (name,), _weights(_in_order(order)),
          f"your side takes the gates of the {name.upper()}'s weights in the order "
          f"{_there(name, order)}; torch's is {', '.join(gates)}",
          "take the gates in torch's order, or rearrange the rows when they are imported",
          everywhere=True)
      for name, gates in _GATES.items() for order in itertools.permutations(range(len(gates)))
      if list(order) != sorted(order)),
    Way("recurrence", ("gru",), _weights(_turned),
        "your side's update gate keeps the new state where torch's keeps the old one",
        "h = (1 - z) * n + z * h, as torch has it"),
    Way("recurrence", ("lstm",), _weights(_more_to_forget, biased=True),
        "your side adds 1 to the forget gate; torch does not",
        "leave the bias of 1 out: torch's bias has what there is"),
    *(Way("left-out", _ALL, _without(which),
          f"your side leaves {words} of a recurrent layer out",
          "torch has two biases for each gate: add both")
      for which, words in ((2, "bias_ih"), (3, "bias_hh"))),
    Way("recurrence", _ALL, _backwards,
        "your side goes through the sequence from its end; torch from its beginning",
        "leave reverse=True out (and keep_order=True where only one direction is reversed)"),
    Way("recurrence", _ALL, _along_the_batch, "your side takes the batch's axis for the time's",
        "give time_major as torch's batch_first has it: batch_first=True is time_major=False"),
    Way("recurrence", _ALL, _swapped,
        "your side joins backward and forward outputs; torch forward and backward",
        "join the outputs in torch's order"),
    Way("recurrence", _ALL, _from_zero,
        "your side begins with a state of zeros; torch with the one that it is given",
        "give the layer torch's first state (initial_carry)"),
    Way("recurrence", ("lstm",), _exchanged,
        "your side takes the cell's state for the hidden one",
        "torch's h_n is the second of Flax's carry (c, h)"),
    *(Way("activation", (name,), _called(other),
          f"your side has {other[4:]} where torch has {name[4:]}", "use torch's activation")
      for name, other in itertools.permutations(("rnn_tanh", "rnn_relu"))),
)  # fmt: skip
