"""The settings of torch's recurrent layers against those of Flax's cells, and of what runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ._function_settings import FUNCTIONS
from ._layer_settings import Doubt

_KNOWN = {name for names, _ in FUNCTIONS.values() for name in names}


def _rnn(torch_layer: Any, part: Any) -> Iterator[str]:
    name = getattr(getattr(part, "activation_fn", None), "__name__", "")
    want = torch_layer.nonlinearity
    if name in _KNOWN and name != want:
        yield f"nonlinearity is {want} in torch and {name} in Flax; give activation_fn=nnx.{want}"
    if getattr(part, "residual", False):
        yield "residual=True adds the input, which torch does not; leave it out"


def _gated(torch_layer: Any, part: Any) -> Iterator[str]:
    for attribute, want in (("gate_fn", "sigmoid"), ("activation_fn", "tanh")):
        name = getattr(getattr(part, attribute, None), "__name__", want)
        if name != want:
            yield f"{attribute} is {name} in Flax; torch's is {want}: leave it out"


CELLS: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    "RNN": _rnn,
    "RNNCell": _rnn,
    **dict.fromkeys(("LSTM", "LSTMCell", "GRU", "GRUCell"), _gated),
}


def of_runs(torch_layer: Any, rnn: Any, both: Any, backwards: bool) -> Iterator[str]:
    """Yield what is otherwise in how Flax runs a cell over a sequence.

    Args:
        torch_layer: an ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``.
        rnn: the ``nnx.RNN`` around the cell.
        both: the ``nnx.Bidirectional`` around that, which decides for it; or None.
        backwards: whether the cell has the weights of torch's other direction.
    """
    turned = (rnn.reverse, rnn.keep_order) if both is None else (backwards, True)
    if backwards and turned != (True, True):
        yield Doubt(
            "goes backwards in torch, and gives what it has in the order of the input: give nnx.RNN"
            " reverse=True, keep_order=True, unless you do so where it is called"
        )
    elif turned[0] and not backwards:
        yield "reverse=True goes backwards, and torch's layer forwards; leave it out"
    time_major = (rnn if both is None else both).time_major
    if time_major and torch_layer.batch_first:
        yield "time_major=True takes (time, batch, …), torch (batch, time, …); leave it out"
    elif not time_major and not torch_layer.batch_first:
        yield Doubt(
            "takes (time, batch, …) in torch (batch_first=False), (batch, time, …) in Flax: see"
            " that each is given its own, or give time_major=True"
        )
    if both is not None and both.merge_fn.__module__.partition(".")[0] != "flax":
        yield Doubt("merge_fn is not Flax's own: see that it joins the directions as torch does")
    if torch_layer.dropout and torch_layer.num_layers > 1:
        yield Doubt(
            f"has dropout={torch_layer.dropout:g} between its layers in torch: see that Flax's have"
        )
