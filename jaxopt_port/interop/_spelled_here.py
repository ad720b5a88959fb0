"""The code that builds here what torch's optimizer and scheduler are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import lr_scheduler
from ..engine import REST, arguments_of
from ..optim import OPTIMIZERS
from ._optimizers import optimizer_from_torch
from ._scheduler_arguments import plain, port_scheduler_of
from ._schedulers import torch_classes
from ._tensors import import_torch
from .mapping import ParamMap

if TYPE_CHECKING:
    import torch


def spelled(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    *,
    params: Any = None,
    param_map: ParamMap | None = None,
    module: torch.nn.Module | None = None,
) -> str:
    """Return the code that builds torch's optimizer and scheduler here.

    Numbers are those of the beginning where a scheduler has moved them (``"initial_lr"``).

    Args:
        optimizer: of one of torch's own classes.
        scheduler: of it.
        params: the JAX parameters, or their shapes; with ``module``, for an optimizer of several
            groups: which leaves are in which.
        param_map: from `param_map`, instead of or beside ``module``.
        module: torch's.

    Returns:
        Python, with its imports; it makes ``tx``, and ``scheduler``. Of a scheduler's functions it
        has the argument's name, for yours; of several, numbered: ``lr_lambda``, ``lr_lambda_2``.

    Raises:
        TypeError, ValueError: as `optimizer_from_torch`; several groups without ``params``.
        ImportError: torch is missing.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters(), lr=0.1)
        >>> print(spelled(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3)))
        import jaxopt_port as jp
        <BLANKLINE>
        tx = jp.AdamW(lr=0.1)
        scheduler = jp.lr_scheduler.StepLR(step_size=3)
    """
    from .._spelled import spelled as spelled_tx
    from .._spelled import spelled_scheduler

    import_torch()
    if not hasattr(optimizer, "param_groups"):
        here = ": jp.spelled is for this library's own" if hasattr(optimizer, "update") else ""
        raise TypeError(f"expected a torch optimizer; got {type(optimizer).__name__}{here}")
    if isinstance(scheduler, list | tuple):
        raise TypeError("give one scheduler; several are a ChainedScheduler, or a SequentialLR")
    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    now = [group["lr"] for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = None if rate is None else float(rate)  # of transformers' Adafactor
        text = spelled_tx(_built(optimizer, params, param_map, module))
    finally:
        for group, rate in zip(optimizer.param_groups, now, strict=True):
            group["lr"] = rate
    if scheduler is None:
        return text
    made = port_scheduler_of(scheduler, optimizer.param_groups, torch_classes())
    assert isinstance(made, lr_scheduler.LRScheduler)
    return f"{text}\nscheduler = {spelled_scheduler(made)}"


def _built(optimizer: Any, params: Any, param_map: ParamMap | None, module: Any) -> Any:
    if params is not None:
        return optimizer_from_torch(optimizer, params, param_map, module=module)[0]
    groups = optimizer.param_groups
    if len(groups) > 1:
        raise ValueError(
            f"the optimizer has {len(groups)} groups; pass params and module, which say whose "
            "parameters are in which"
        )
    name = type(optimizer).__name__
    cls = OPTIMIZERS.get(name)
    if cls is None or type(optimizer).__module__.partition(".")[0] != "torch":
        raise TypeError(f"{type(optimizer).__qualname__} is not a class of torch.optim itself")
    names = arguments_of(cls.factory).names
    options = {k: plain(v) for k, v in groups[0].items() if k in names}
    return cls(REST, **options)
