"""The command ``jaxopt-port show``: what a run left behind, and the code that goes on with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.table import Table

from .._printable import printable
from . import _shown
from ._frame import JsonFile, usage_errors, waiting, write_json
from ._shown import say, text

_NAMES = 12  # of parameters, unless all are asked for


def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or the folder of a run.")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=KEY",
            help="Where it does not say what is what: params=net, optimizer=opt, …; repeatable.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A class or function in the file that may be imported and run, "
            "package.module.Name; repeatable. Only for files that you trust.",
        ),
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="List every parameter.")] = False,
    json: JsonFile = None,
) -> None:
    """Say what is in a checkpoint: parts, groups with their numbers, steps, schedulers, names.

    Example: jaxopt-port show checkpoint-500

    Reads what convert reads: files of torch.save of any name, .safetensors, folders of Hugging
    Face's Trainer, Accelerate, torch.distributed.checkpoint and DeepSpeed. Nothing in them is run.
    The last lines are the code that goes on with the run in JAX.

    Exit code 0: it was read. 2: it could not be, and why is said.
    """
    from ..interop import load
    from . import _conversion, _parsed

    with usage_errors(), waiting(f"reading {path}"):
        keys = _parsed.parsed_keys(key) if key else None
        with warnings.catch_warnings(record=True) as caught, _conversion.allowed(allow or []):
            warnings.simplefilter("always")
            found = load(path, keys=keys)
    say(f"{path}" + (f": {found.origin}" if found.origin else ""))
    _shown.show(_conversion.contents(found, ""))
    for name, optimizer in found.optimizers.items():
        _shown.show(f"{text(name)}: {text(_same_in_all(optimizer))}")
        _shown.show(_groups(optimizer))
    for name, scheduler in found.schedulers.items():
        _shown.show(f"{text(name)}: {text(_last(scheduler))}")
    _shown.show(_parameters(found.params, names))
    notes = [str(warning.message) for warning in caught]
    for note in notes:
        say(f"Note: {note}")
    lines = list(code(path, found))
    say("\nTo go on in JAX:\n")
    say("\n".join(f"    {line}" for line in lines))
    with usage_errors():
        facts = _conversion.facts(found)
        write_json(json, {"path": path, **facts, "notes": notes, "code": lines})


def _options(optimizer: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options that are the same in all groups, and the names of the others."""
    groups = optimizer["param_groups"]
    names = dict.fromkeys(k for g in groups for k in g if k not in ("params", "param_names"))
    first = groups[0]
    same = {k: first.get(k) for k in names if all(_equal(g.get(k), first.get(k)) for g in groups)}
    return same, [k for k in names if k not in same]


def _same_in_all(optimizer: Mapping[str, Any]) -> str:
    same, _ = _options(optimizer)
    return ", ".join(f"{k}={_short(v)}" for k, v in same.items() if v is not None)


def _groups(optimizer: Mapping[str, Any]) -> Table:
    """Return a table of an optimizer's groups, with the options in which they differ."""
    groups, (_, differing) = optimizer["param_groups"], _options(optimizer)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("group", "parameters", "steps", *map(text, differing)):
        table.add_column(column)
    for i, group in enumerate(groups):
        table.add_row(
            str(i),
            str(len(group["params"])),
            _steps(optimizer, group),
            *(text(_short(group.get(k))) for k in differing),
        )
    return table


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(np.array_equal(np.asarray(a), np.asarray(b)))


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.ndarray) and value.size == 1 else value)
    return text if len(text) <= 40 else text[:37] + "..."


def _steps(optimizer: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    held = [optimizer["state"].get(index, {}) for index in group["params"]]
    counts = sorted({int(np.asarray(h["step"]).item()) for h in held if "step" in h})
    without = sum(not h for h in held)
    words = (
        [f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"] if counts else []
    )
    if without and group["params"]:
        words.append("no state" if without == len(held) else f"{without} without state")
    return ", ".join(words) or "not counted"


def _last(scheduler: Mapping[str, Any]) -> str:
    last, rates = scheduler.get("last_epoch"), scheduler.get("_last_lr")
    inner = scheduler.get("_schedulers")
    words = [f"last_epoch {last}" if last is not None else "scheduler"]
    words += [f"rates {_short(rates)}"] if rates is not None else []
    words += [f"of {len(inner)} schedulers"] if isinstance(inner, list) else []
    return ", ".join(words)


def _parameters(params: Mapping[str, Any], every: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("parameter", "shape", "dtype"):
        table.add_column(column)
    listed = list(params.items())
    for name, array in listed if every else listed[:_NAMES]:
        table.add_row(text(name), str(array.shape), array.dtype.name)
    if len(listed) > _NAMES and not every:
        table.add_row(f"and {len(listed) - _NAMES} more", "", "")
    return table


def code(path: Path, found: Any) -> Iterator[str]:
    """Yield the lines that go on with a run."""
    from .._spelled import quoted
    from ..interop import likely_class, likely_scheduler

    of_trainer = list(_trainers_schedule(found))
    yield "import jaxopt_port as jp"
    yield "from jaxopt_port import " + ("contrib, interop" if of_trainer else "interop")
    yield ""
    yield f"run = interop.load({quoted(printable(str(path)))})"
    several = len(found.optimizers) > 1
    names = [(f"tx_{i}", f"state_{i}") if several else ("tx", "state") for i in range(99)]
    if found.layout == "jax":
        yield "params = …  # your tree, with the arrays of run.params by path"
    elif found.params or found.optimizers:
        yield "mapped = interop.param_map(module, model)  # torch's module, your model or tree"
        arrays = "run.params" if found.params else "module"
        yield f"params = interop.params_from_torch({arrays}, model, mapped)"
    for (tx, state), (key, optimizer) in zip(names, found.optimizers.items(), strict=False):
        one, name = _one(found.optimizers, "optimizer", key), found.optimizer_name
        if found.layout == "jax":
            known = name if name and name.isidentifier() else "…"
            yield f"{tx} = jp.{known}(…)  # with the groups shown above"
            yield f"{state} = jp.load_state_dict({tx}, {one}, params)"
        else:
            name = quoted(printable(name or likely_class(optimizer) or "…"))
            yield f"{tx}, {state} = interop.optimizer_from_torch("
            yield f"    {one}, params, mapped, module=module,"
            yield f"    optimizer_name={name},  # torch's class"
            yield ")"
    for key, scheduler in found.schedulers.items():
        likely = likely_scheduler(scheduler)
        if of_trainer:
            yield from of_trainer
        elif likely:
            remark = "with torch's arguments" if "…" in likely else "whose numbers it holds"
            yield f"scheduler = jp.lr_scheduler.{likely}  # {remark}"
        else:
            yield "scheduler = jp.lr_scheduler.…  # of the class and arguments that it had in torch"
        groups = f'{_one(found.optimizers, "optimizer")}["param_groups"]'
        groups = groups if found.optimizers else "…"
        held = _one(found.schedulers, "scheduler", key)
        yield f"sched_state = scheduler.load_state_dict({held}, {groups})"
    for tx, state in names[: len(found.optimizers)]:
        yield f"params, {state} = jp.step({tx}, grads, {state}, params)"


def _one(held: Mapping[str, Any], what: str, key: str | None = None) -> str:
    from .._spelled import quoted

    name = quoted(printable(key or next(iter(held), "…")))
    return f"run.{what}" if len(held) == 1 else f"run.{what}s[{name}]"


def _trainers_schedule(found: Any) -> Iterator[str]:
    """Yield what makes the schedule that the settings of Hugging Face's Trainer name."""
    args, progress = (found.extra.get(name) for name in ("training_args", "trainer_state"))
    if not (isinstance(args, Mapping) and isinstance(progress, Mapping) and found.schedulers):
        return
    kind, steps = args.get("lr_scheduler_type"), progress.get("max_steps")
    warm_up, ratio = args.get("warmup_steps"), args.get("warmup_ratio")
    if not isinstance(kind, str) or not isinstance(steps, int):
        return
    if isinstance(warm_up, float) and 0 < warm_up < 1:  # transformers 5 has one for both
        warm_up, ratio = 0, warm_up
    if not warm_up and isinstance(ratio, int | float) and math.isfinite(ratio):
        warm_up = math.ceil(steps * ratio)
    if isinstance(warm_up, int | float) and float(warm_up).is_integer():
        yield f"scheduler = contrib.get_scheduler({printable(repr(kind))}, {int(warm_up)}, {steps})"
