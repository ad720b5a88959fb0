"""What a trace says of a run: names, layers, numbers, as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch

from ._batches import mapped
from ._files import json_values, sha256
from ._run import TorchRun
from ._steps import Evaluation, Update


def environment(run: TorchRun) -> dict[str, str]:
    try:
        library = importlib.metadata.version("jaxopt-port")
    except importlib.metadata.PackageNotFoundError:
        library = "not installed"
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "jaxopt_port": library,
        "device": str(run._device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def tensors_described(module: torch.nn.Module) -> list[dict[str, Any]]:
    """Return names, shapes and dtypes of parameters and buffers, tied ones under each name."""
    first: dict[int, str] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    kept = module.state_dict(keep_vars=True)
    buffers = {n: b for n, b in module.named_buffers(remove_duplicate=False) if n in kept}
    return [
        {
            "name": name,
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "buffer": name not in parameters,
            "tied_to": tied if (tied := first.setdefault(id(tensor), name)) != name else None,
        }
        for name, tensor in {**parameters, **buffers}.items()
    ]


def layers_described(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """Return what each layer is of torch.nn's classes, the nearest first."""
    return {
        name: {
            "type": type(layer).__name__,
            "bases": [
                base.__name__
                for base in type(layer).__mro__
                if getattr(torch.nn, base.__name__, None) is base
            ],
            "num_heads": getattr(layer, "num_heads", None)
            if isinstance(layer, torch.nn.MultiheadAttention)
            else None,
            "momentum": getattr(layer, "momentum", None)
            if isinstance(getattr(layer, "momentum", None), float)
            else None,
        }
        for name, layer in module.named_modules(remove_duplicate=False)
    }


def _leaves(batch: Any) -> list[torch.Tensor]:
    leaves: list[torch.Tensor] = []
    mapped(leaves.append, batch)
    return leaves


def _structure(batch: Any, hashes: Iterator[str] | None, places: Iterator[int]) -> Any:
    if isinstance(batch, Mapping):
        return {"dict": [[k, _structure(v, hashes, places)] for k, v in batch.items()]}
    if isinstance(batch, (tuple, list)):
        kind = "tuple" if isinstance(batch, tuple) else "list"
        return {kind: [_structure(v, hashes, places) for v in batch]}
    if batch is None:
        return None
    leaf = {"array": next(places), "dtype": str(batch.dtype).removeprefix("torch.")}
    leaf["shape"] = list(batch.shape)
    return leaf if hashes is None else {**leaf, "sha256": next(hashes)}


def tensors_of(
    evaluation: Evaluation, update: Update, described: Container[str]
) -> dict[str, torch.Tensor]:
    """Return all tensors of a step by the names that they have in its file.

    Args:
        evaluation: of the step.
        update: likewise.
        described: names of parameters and buffers: one that is not persistent has no place.
    """
    kinds: dict[str, Mapping[Any, Any]] = {
        "batch": dict(enumerate(_leaves(evaluation.batch))),
        "grad": evaluation.grads, "fed": evaluation.fed or {}, "given": update.grads,
        "average": update.averages, "average64": update.averages64,
        "clipped": update.clipped, "clipped64": update.clipped64,
        "param": update.params, "param64": update.params64,
    }  # fmt: skip
    for kind, states in (("state", update.state), ("state64", update.state64)):
        held = ((f"{n}/{key}", x) for n, state in states.items() for key, x in state.items())
        kinds[kind] = {place: x for place, x in held if isinstance(x, torch.Tensor)}
    if (checked := evaluation.checked) is not None:
        kinds["checked/output"] = dict(enumerate(checked.output))
        kinds["checked64/output"] = dict(enumerate(checked.output64))
        for kind, named in (
            ("checked/param", checked.params),
            ("checked/buffer", checked.buffers),
            ("checked/buffer_after", checked.buffers_after),
            ("checked64/grad", checked.grads64),
            ("checked64/buffer_after", checked.buffers_after64),
        ):
            kinds[kind] = {n: x for n, x in named.items() if n in described}
    return {f"{kind}/{n}": x for kind, of in kinds.items() for n, x in of.items()}


def scalars_of(evaluation: Evaluation, update: Update, store_batches: bool) -> dict[str, Any]:
    checked = evaluation.checked
    leaves = _leaves(evaluation.batch)
    hashes = None if store_batches else iter([sha256(x) for x in leaves])

    def numbers(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {
            name: rest
            for name, state in states.items()
            if (rest := {k: v for k, v in state.items() if not isinstance(v, torch.Tensor)})
        }

    groups = [{k: v for k, v in g.items() if k != "params"} for g in evaluation.options]
    plain: dict[str, Any] = json_values(
        {
            "step": evaluation.step,
            "loss": evaluation.loss,
            "loss64": None if checked is None else checked.loss64,
            "checked": checked is not None,
            "stepped": update.stepped,
            "options": groups,
            "batch": _structure(evaluation.batch, hashes, iter(range(len(leaves)))),
            "state": numbers(update.state),
            "state64": numbers(update.state64),
        }
    )
    return plain
