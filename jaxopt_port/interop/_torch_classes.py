"""Which optimizer of this library is which class of torch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..checkpoint import ELSEWHERE, check_structure
from ..contrib import REFERENCES, reference_named, reference_of
from ..engine import IMPLEMENTATIONS, Group, Optimizer, arguments_of, rule_of
from ..optim import OPTIMIZERS, AdamW, lbfgs
from ..trees import nearest
from ._tensors import import_torch


def unwrapped_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that Accelerate, Lightning or a scaler has wrapped."""
    torch = import_torch()
    while not isinstance(optimizer, torch.optim.Optimizer) or _is_wrapper(optimizer):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or inner is optimizer:
            return optimizer
        optimizer = inner
    return optimizer


def _is_wrapper(optimizer: Any) -> bool:
    return type(optimizer).__name__ in ("AcceleratedOptimizer", "LightningOptimizer")


_WITHIN = "and put what comes of it within contrib."
# What to do with what stands around an optimizer.
_AROUND = {
    "timm.Lookahead": f"pass optimizer._base_optimizer, {_WITHIN}lookahead, whose slow parameters "
    "begin anew; first take out its own: for held in optimizer._base_optimizer.state.values(): "
    'held.pop("lookahead_slow_buff", None)',
    "pytorch_optimizer.Lookahead": f"pass optimizer.optimizer, {_WITHIN}lookahead, whose slow "
    "parameters begin anew",
    "pytorch_optimizer.SAM": f"pass optimizer.base_optimizer, {_WITHIN}sam; first take out its "
    "options: for group in optimizer.param_groups: for name in "
    '("rho", "adaptive", "perturb_eps"): group.pop(name, None)',
}


def factory_of(optimizer: Any, name: str | None) -> Any:
    torch = import_torch()
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        raise TypeError(
            f"expected a torch optimizer or its state_dict(); got {type(optimizer).__name__}, which"
            " is an optimizer of JAX's already: optimizer_to_torch is the other way"
        )
    if isinstance(optimizer, list | tuple):
        raise TypeError(
            f"expected a torch optimizer or its state_dict(); got {len(optimizer)}: convert each "
            "by itself, and take the step of each in turn, as torch does; parameters that one was "
            "not given are frozen in it"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"expected a torch optimizer or its state_dict(); got {type(optimizer).__name__}"
        )
    cls = type(optimizer)
    reference = reference_of(cls)
    if reference is not None and name is None:
        return reference
    around = _AROUND.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
    if name is None and around is not None:
        raise TypeError(
            f"{cls.__qualname__} stands around another optimizer, which is what can be converted: "
            f"{around}"
        )
    if name is None and getattr(torch.optim, cls.__name__, None) is not cls:
        torchs = [b for b in cls.__mro__[1:] if getattr(torch.optim, b.__name__, None) is b]
        bases = [base.__name__ for base in torchs if base is not torch.optim.Optimizer]
        held = {key for state in optimizer.state.values() for key in state}
        own = ", ".join(f'"{key}": "{key}"' for key in sorted(map(str, held)))
        raise TypeError(
            f"{cls.__qualname__} is not a class of torch.optim itself, nor one that "
            "jaxopt_port.contrib knows, and what it does in step() is not known; pass factory=, a "
            "rule that does the same (docs/writing-a-rule.md), and "
            f"state={{{own}}}, its names of what a parameter holds"
            + (
                f'. If its step() is that of {bases[0]}: optimizer_name="{bases[0]}"'
                if bases
                else ""
            )
        )
    return factory_named(name or cls.__name__, optimizer.param_groups)


def likely_class(optimizer: Mapping[str, Any]) -> str | None:
    """Return the class of torch's whose options a state dict has; None where none has them alone.

    A hint for people: other packages have optimizers with the same options.

    Raises:
        TypeError, ValueError: it is no state dict.
    """
    if not isinstance(optimizer, Mapping):
        raise TypeError(f"expected an optimizer's state dict; got {type(optimizer).__name__}")
    check_structure(optimizer)
    return _likely(optimizer["param_groups"])


def _likely(groups: Sequence[Mapping[str, Any]]) -> str | None:
    decoupled = "decoupled_weight_decay"
    keys = {k for group in groups for k in group}
    known = {"params", "param_names", "name", *IMPLEMENTATIONS, *ELSEWHERE} - {decoupled}
    keys -= known
    found = []
    for name, cls in OPTIMIZERS.items():
        names = set(arguments_of(cls.factory).names) | ({decoupled} if cls is AdamW else set())
        if names - {"maximize", decoupled} <= keys <= names:
            found.append(name)
    if set(found) == {"Adam", "AdamW"}:
        said = [group.get(decoupled) for group in groups]
        found = ["AdamW"] if said[0] is True else ["Adam"] if said[0] is False else []
    return found[0] if len(found) == 1 else None


def factory_named(name: str | None, groups: Sequence[Mapping[str, Any]]) -> Any:
    likely = _likely(groups)
    if name is None:
        raise TypeError(
            "a state dict does not say which optimizer it belongs to; pass optimizer_name, such as "
            f'optimizer_name="{likely or "AdamW"}"' + (", whose options it has" if likely else "")
        )
    if name not in OPTIMIZERS and (reference := reference_named(name)) is not None:
        return reference
    if name not in OPTIMIZERS:
        of_contrib = [f"{reference.package}.{reference.name}" for reference in REFERENCES]
        raise TypeError(
            f"no optimizer is named {name!r}{nearest(name, [*OPTIMIZERS, *of_contrib])}; there are "
            f"{', '.join(OPTIMIZERS)}, and jaxopt_port.contrib's, by package (timm.Lion). Of "
            "another, pass factory=, a rule that does the same"
        )
    if likely not in (None, name) and {likely, name} != {"Adam", "AdamW"}:
        raise ValueError(
            f"the state dict has the options of {likely}, and not those of {name}; pass "
            f'optimizer_name="{likely}"'
        )
    if name == "AdamW" and any(g.get("decoupled_weight_decay") is False for g in groups):
        raise ValueError(
            "the state dict is that of Adam, whose weight decay is added to the gradient "
            '(decoupled_weight_decay is False), and not of AdamW; pass optimizer_name="Adam"'
        )
    return OPTIMIZERS[name].factory


def torch_name(tx: Optimizer, groups: Sequence[Group]) -> str:
    """Return the class of torch's that does what all groups do."""
    by_rule = {rule_of(cls.factory): name for name, cls in OPTIMIZERS.items()}
    names = {by_rule.get(group.rule) if group.rule is not None else None for group in groups}
    if names == {None} and tx.definition.factory is lbfgs:
        return "LBFGS"
    if len(names) != 1 or None in names:
        shown = ", ".join(sorted({g.rule.name if g.rule else "a foreign factory" for g in groups}))
        raise TypeError(
            f"torch has no one optimizer for these groups ({shown}); a grouped optimizer of one of "
            "torch's classes can be converted: make one for each, with the others' parameters "
            "frozen, and step them in turn"
        )
    (only,) = names
    assert isinstance(only, str)
    return only
