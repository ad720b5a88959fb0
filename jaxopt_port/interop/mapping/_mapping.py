from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._wrapper_prefixes import HOLDERS, common_prefix, shared_prefix
from ._jax_leaves import is_nnx_module
from ._layer_differences import flax_parts, warn_of_differences
from ._matching import Matcher, Problems
from ._param_map import ParamMap
from ._rules_by_hand import Layouts, LayoutsByHand, Rename, Renaming
from ._suggested_rules import suggested_rules
from ._torch_tensors import TorchTensor, tensors_given, tensors_of

_OF_THE_MODEL = (
    "; a state does not say what its layers are: give the map of the model whose it is, as"
    " param_map=interop.param_map(module, model)"
)
_SHOWN, _SHOWN_WITH_RULES = 12, 4  # lines of an error


def param_map(
    module: Any,
    like: Any,
    *,
    rename: Rename = (),
    layouts: Layouts | None = None,
    strict: bool = True,
    flax_module: Any = None,
    inputs: Sequence[Any] = (),
) -> ParamMap:
    """Return which leaf of a JAX tree is which tensor of a torch module, and in what layout.

    The counterpart of the names in a state dict: torch's ``features.0.weight`` is the leaf
    ``features/0/kernel``. Layouts follow from what the layers are, on torch's side and, for an
    ``nnx.Module``, on Flax's: ``nn.Conv2d`` goes from (O, I, H, W) to (H, W, I, O). Of a layer that
    is not torch's own, or of a state dict, only names are known: there a leaf called "kernel" may
    be the weight as it is or transposed, and the shapes decide; where they do not (the weight is
    square), that is an error, and ``layouts`` has to say. Parameters of a module's own keep their
    name and layout. Tied tensors have one leaf, under any of their names. Where the Flax layers are
    at hand too, a `LayerDifferenceWarning` tells of settings under which they compute otherwise;
    small layers of your own, whose settings nothing tells, are run in pairs to see it.

    Args:
        module: a ``torch.nn.Module``, a state dict, a mapping from names to tensors or arrays, or
            what `load` returns.
        like: the JAX side: an ``nnx.Module``, NNX state, pure or with Variables, Linen variables
            (``{"params": …, "batch_stats": …}``) or their ``params``, any pytree; the leaves may be
            ``ShapeDtypeStruct``. Random states in it are passed over.
        rename: rules for names that differ. A mapping or a list of (regular expression,
            replacement), each of which is applied to torch's name by ``re.sub``, in turn; or a
            function from torch's name to a path, None for a name that stays. What comes out, dots
            read as slashes, is the leaf, with torch's last name ("weight", which becomes "kernel")
            or without it, or the layer.
        layouts: layouts by torch's name, by path, or by a glob of either: ``(1, 0)``, the axes of
            ``transpose``; a `Layout`; None for as is. A glob's axes are for the tensors that have
            as many.
        strict: False passes over tensors without a leaf and leaves without a tensor, and names
            them in ``notes``. Wrong shapes and doubtful layouts stay errors.
        flax_module: the Flax module that ``like`` is a tree of, where that is no ``nnx.Module``
            itself: for what its layers are, and to compare them with torch's.
        inputs: for a Linen module, arguments of its call: its layers appear only then.

    Raises:
        TypeError: ``module`` is neither a module nor a mapping from names to tensors.
        ValueError: tensors or leaves are missing, left over, of other shapes, tied but apart, or
            fit in more than one layout; all are listed.
        ImportError: torch is missing.

    Example:
        >>> import torch, jax.numpy as jnp
        >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2))
        >>> like = {"0": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
        >>> print(param_map(module, like))
        JAX path  shape   torch name  shape   layout
        --------  ------  ----------  ------  -----------------
        0/bias    (2,)    0.bias      (2,)    as is
        0/kernel  (3, 2)  0.weight    (2, 3)  transposed (1, 0)
    """
    module = tensors_given(module)
    flax_module = like if flax_module is None and is_nnx_module(like) else flax_module
    parts = flax_parts(flax_module, inputs)
    found = matched_without_prefix(module, like, rename, layouts, strict, parts)
    found.refuse_if_wrong(module, like, rename, layouts, parts)
    notes = warn_of_differences(module, parts, found.made, found.renaming)
    return dataclasses.replace(found.made, notes=found.made.notes + notes)


class Match(NamedTuple):
    """A map, what is wrong with it, and the rules by which it was made."""

    made: ParamMap
    problems: Problems
    renaming: Renaming

    @property
    def order(self) -> tuple[int, int]:
        """The less is wrong, and the more fits, the smaller."""
        return len(self.problems), -len(self.made.entries)

    def refuse_if_wrong(
        self,
        module: Any,
        like: Any,
        rename: Rename,
        layouts: Layouts | None,
        parts: Mapping[str, Any],
        also: Sequence[str] = (),
    ) -> None:
        """Raise the one error that lists all that is wrong, rules that would mend it first."""
        of_nnx = type(like).__module__.startswith("flax.nnx") and not isinstance(like, type)
        seen = _OF_THE_MODEL if of_nnx and not parts else ""
        if not self.problems or callable(rename):
            return refuse_if([*self.problems.lines, *also], module, seen)
        given = list(rename.items()) if isinstance(rename, Mapping) else list(rename)

        def tried(rules: Sequence[tuple[str, str]]) -> Problems:
            renaming = Renaming([*given, *rules], self.renaming.prefix)
            return matched(module, like, renaming, layouts, True, parts).problems

        rules, rest = suggested_rules(self.problems, tried)
        lines, remedy = self.problems.lines, ""
        if rules:
            remedy = f" rename={[*given, *rules]} would make them fit"
            remedy += f", but for {len(rest)} of {len(lines)} lines" if rest else ""
            lines = rest.lines or lines[:_SHOWN_WITH_RULES]
        if self.renaming.prefix:
            remedy += f" ({self.renaming.prefix!r}, with which torch's names begin, left out)"
        refuse_if([*lines, *also], module, remedy + seen)


def matched_without_prefix(
    module: Any,
    like: Any,
    rename: Rename,
    layouts: Layouts | None,
    strict: bool,
    parts: Mapping[str, Any],
) -> Match:
    """Return what `matched` returns, without what stands before all names where that fits.

    The names as they are come first: a tree may have the wrapper's name too. What is no wrapper's
    (Hugging Face's ``transformer.``) is left out where all the rest then fits; where nothing fits,
    it is left out of what is said if less is then wrong.
    """
    best = nearest = matched(module, like, Renaming(rename), layouts, strict, parts)
    names = [tensor.name for tensor in tensors_of(module)]
    known, prefix = shared_prefix(names, HOLDERS), common_prefix(names)
    while prefix and (best.problems or not best.made.entries):
        again = matched(module, like, Renaming(rename, prefix), layouts, strict, parts)
        fits = known.startswith(prefix) or (not again.problems and bool(again.made.entries))
        if fits and again.order < best.order:
            note = f"all of torch's names begin with {prefix!r}, which the tree has not: left out"
            notes = (*again.made.notes, note)
            best = again._replace(made=dataclasses.replace(again.made, notes=notes))
        nearest = min(nearest, again, key=lambda match: len(match.problems))
        prefix = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return nearest if best.problems and nearest.problems else best


def map_of_tensors(
    tensors: list[TorchTensor],
    like: Any,
    *,
    rename: Rename = (),
    layouts: Layouts | None = None,
    flax_module: Any = None,
    inputs: Sequence[Any] = (),
) -> ParamMap:
    """Return the map of what is known of torch's tensors, where torch is not at hand.

    Args:
        tensors: parameters and buffers.
        like: and the others: see `param_map`.
        rename: likewise.
        layouts: likewise.
        flax_module: likewise.
        inputs: likewise.

    Raises:
        ValueError: as `param_map`.
    """
    flax_module = like if flax_module is None and is_nnx_module(like) else flax_module
    parts, by_hand = flax_parts(flax_module, inputs), LayoutsByHand(layouts)
    made, problems = Matcher(tensors, like, Renaming(rename), by_hand, parts).run()
    refuse_if(problems.lines, tensors)
    return made


def matched(
    module: Any,
    like: Any,
    renaming: Renaming,
    layouts: Layouts | None,
    strict: bool,
    parts: Mapping[str, Any],
) -> Match:
    """Return the map of what matches, and all that does not."""
    tensors, by_hand = tensors_of(module), LayoutsByHand(layouts)
    made, problems = Matcher(tensors, like, renaming, by_hand, parts).run()
    if not strict:
        made = dataclasses.replace(made, notes=(*made.notes, *problems.unmatched))
        problems.unmatched = []
    return Match(made, problems, renaming)


def refuse_if(problems: Sequence[str], module: Any, remedy: str = "") -> None:
    """Raise the one error that lists what is wrong, of very much the first."""
    if not problems:
        return
    name = type(module).__name__
    if isinstance(module, Mapping):
        name = "state dict"
        remedy += "; a state dict does not say what its layers are: give the module if you have it"
    lines = list(problems[:_SHOWN])
    lines += [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    raise ValueError(
        f"The JAX tree and torch's {name} do not have the same parameters:"
        + remedy.removeprefix(";")
        + "".join(f"\n  {line}" for line in lines)
    )
