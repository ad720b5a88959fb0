"""What is known of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Checked:
    """What more is known of a step at which everything is checked.

    Attributes:
        params: before the step, by torch's name (the first of tied names).
        buffers: floating ones, before the forward pass.
        output: the tensors in the output, flattened; those of a dict by its sorted keys.
        buffers_after: floating ones, after the forward pass.
        output64: the same output evaluated in float64, from the same parameters and batch.
        loss64: its loss.
        grads64: its gradients.
        buffers_after64: its buffers after the forward pass.
    """

    params: dict[str, Any]
    buffers: dict[str, Any]
    output: list[Any]
    buffers_after: dict[str, Any]
    output64: list[Any]
    loss64: float
    grads64: dict[str, Any]
    buffers_after64: dict[str, Any]


@dataclass
class Evaluation:
    """What is known of a step before the optimizer makes it.

    Attributes:
        step: counted from 0.
        batch: in the module's dtype, integers as int64.
        loss: of the batch.
        grads: by torch's name, before clipping; parameters without one are left out.
        options: of each group, the entries in force; ``"params"`` is a list of names.
        checked: more, at a step that is checked.
        fed: what of the gradients comes through a scaler; None where that is all.
    """

    step: int
    batch: Any
    loss: float
    grads: dict[str, Any]
    options: list[dict[str, Any]]
    checked: Checked | None
    fed: dict[str, Any] | None = None


@dataclass
class Update:
    """What the optimizer's step left.

    Attributes:
        clipped: gradients after clipping; empty where there is none.
        clipped64: those that the optimizer in float64 was given, likewise.
        params: after the step.
        state: torch's ``optimizer.state`` by parameter name.
        params64: of an optimizer in float64, which was fed with the same gradients from the start.
        state64: its state.
        stepped: whether the optimizer was asked for a step; not where gradients are added up.
        grads: what it was given before clipping, where that is not the batch's own gradients.
        averages: running averages of ``params``; empty where there are none.
        averages64: those of ``params64``.
        own_dtype: whether ``params`` are of the run's own dtype; in a trace they may be
            ``params64``, rounded.
    """

    clipped: dict[str, Any]
    clipped64: dict[str, Any]
    params: dict[str, Any]
    state: dict[str, dict[str, Any]]
    params64: dict[str, Any]
    state64: dict[str, dict[str, Any]]
    stepped: bool = True
    grads: dict[str, Any] = field(default_factory=dict)
    averages: dict[str, Any] = field(default_factory=dict)
    averages64: dict[str, Any] = field(default_factory=dict)
    own_dtype: bool = True
