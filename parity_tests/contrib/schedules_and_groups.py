"""Schedules and groups beside the packages themselves, for `parity_tests.contrib.matrix`.

A schedule's numbers are counted that differ by a bit from the package's: of both groups and all
steps of each case, eagerly and in a compiled loop. Groups are compared as they are, in order.
"""

import importlib
import json
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import torch

from jaxopt_port import contrib
from parity_tests.contrib import mup_cases, schedule_references
from parity_tests.contrib.cases import RECORDED_SCHEDULES, tree_of
from parity_tests.contrib.schedule_cases import (
    DETECTRON2,
    HUGGING_FACE,
    INVERSE_ROOT,
    LR,
    MULTIPLIERS,
    NOAM,
    PLATEAU,
    SCALES,
    STEPS,
    TIMM,
    digest,
    metrics,
    shown,
    theirs_of_timm,
)
from parity_tests.contrib.schedule_references import optimizer_of
from parity_tests.contrib.scheduled import ours_of_fvcore, rates_of, rates_there

OF_TIMM = [*TIMM, *(("PlateauLRScheduler", given) for given in PLATEAU)]
MODELS = ("vit_tiny_patch16_224", "resnet18", "convnext_atto")
# Configurations of transformers, small, by what they call their norms.
TRANSFORMERS = {
    "Bert": {"num_hidden_layers": 2},
    "GPT2": {"n_layer": 2, "bos_token_id": 0, "eos_token_id": 0},
    "T5": {"num_layers": 2, "d_model": 8, "d_ff": 8, "vocab_size": 9},
    "Llama": {"num_hidden_layers": 2},
    "ViT": {"num_hidden_layers": 2},
    "ResNet": {"depths": [1, 1, 1, 1]},
}
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}


class Compared(NamedTuple):
    """One name of a package: what it is here, and how many of so many numbers or groups differ."""

    package: str
    name: str
    here: str
    cases: int
    differ: int
    of: int
    what: str

    def __str__(self):
        found = f"{self.differ:,} of {self.of:,} {self.what} differ"
        return f"| {self.package} | {self.name} | `{self.here}` | {self.cases} | {found} |"


def recorded_schedules() -> dict:
    """By schedule of timm's, what tells its rates from others, and its state dict at the end."""
    found = {}
    for name, arguments in OF_TIMM:
        rates, state_dict = theirs_of_timm(name, arguments)
        found[shown(name, arguments)] = {
            "first": rates[:12],
            "digest": digest(rates),
            "state_dict": state_dict,
        }
    return found


def recorded_mup() -> dict:
    return {
        f"{optimizer} {apart}": mup_cases.theirs(optimizer, apart)
        for optimizer in mup_cases.OPTIMIZERS
        for apart in (False, True)
    }


def differing(scheduler, expected, step=None, scales=(1.0, 1.0)) -> int:
    compiled, eager, _ = rates_of(scheduler, step, scales)
    return int(np.sum(eager != expected)) + int(np.sum(compiled != expected))


def in_rows(schedules: Callable) -> Callable:
    """Make rows of what is yielded: package, name and name here, and what `differing` takes."""

    def rows() -> list[Compared]:
        found: dict = {}
        for names, *given in schedules():
            found.setdefault(names, []).append(differing(*given))
        return [
            Compared(*names, len(of), sum(of), len(of) * 4 * STEPS, "rates")
            for names, of in found.items()
        ]

    return rows


@in_rows
def of_timm():
    given = jnp.asarray(metrics(), jnp.float32)
    for name, arguments in OF_TIMM:
        expected, _ = theirs_of_timm(name, arguments)
        ours = getattr(contrib, name)(**arguments)
        step = ours.step if arguments.get("t_in_epochs", True) else ours.step_update
        if name == "PlateauLRScheduler":
            step = lambda state, own, t, ours=ours: ours.step(state, own, t, given[t])  # noqa: E731
        yield ("timm", name, name), ours, expected, step, SCALES


@in_rows
def of_transformers():
    import transformers.optimization

    for name, arguments, reads in HUGGING_FACE:
        theirs = getattr(transformers.optimization, name)(optimizer_of(LR), **arguments)
        ours = getattr(contrib, name)(**arguments, **reads)
        yield ("transformers", name, name), ours, rates_there(theirs)


@in_rows
def of_detectron2():
    """Beside `schedule_references`; with fvcore's own functions, where it is installed."""
    for name, arguments in DETECTRON2:
        theirs = getattr(schedule_references, name)(optimizer_of(LR), **arguments)
        yield ("detectron2", name, name), getattr(contrib, name)(**arguments), rates_there(theirs)
    for name, arguments in MULTIPLIERS:
        multiplier = theirs_of_fvcore(name, **arguments)
        theirs = schedule_references.LRMultiplier(optimizer_of(LR), multiplier, STEPS)
        ours = contrib.LRMultiplier(ours_of_fvcore(name, **arguments), STEPS)
        names = "detectron2", f"LRMultiplier({name})", "LRMultiplier"
        yield names, ours, rates_there(theirs)


@in_rows
def of_noam():
    for arguments in NOAM:
        names = arguments["package"], "noam", "get_noam_schedule"
        expected = schedule_references.noam_rates(LR, STEPS, **arguments)
        yield names, contrib.get_noam_schedule(**arguments), expected
    for arguments in INVERSE_ROOT:
        names = "fairseq", "inverse_sqrt", "InverseSquareRootSchedule"
        rates = schedule_references.inverse_square_root(STEPS, **arguments)
        ours = contrib.InverseSquareRootSchedule(**arguments)
        yield names, ours, np.array([rates, rates]).T, ours.step_update


def theirs_of_fvcore(name, **arguments):
    try:
        fvcore = importlib.import_module("fvcore.common.param_scheduler")
    except ImportError:
        return schedule_references.of_fvcore(name, **arguments)
    if "scheduler" not in arguments:
        return getattr(fvcore, name)(**arguments)
    # What detectron2's WarmupParamScheduler makes.
    of, more = arguments["scheduler"]
    after, length = theirs_of_fvcore(of, **more), arguments["warmup_length"]
    start, rescaled = arguments["warmup_factor"] * after(0.0), arguments["rescale_interval"]
    warm = fvcore.ConstantParamScheduler(start)
    if arguments["warmup_method"] == "linear":
        warm = fvcore.LinearParamScheduler(start, after(0.0) if rescaled else after(length))
    return fvcore.CompositeParamScheduler(
        [warm, after],
        interval_scaling=["rescaled", "rescaled" if rescaled else "fixed"],
        lengths=[length, 1 - length],
    )


def in_order(groups, names) -> list:
    return [
        [{k: v for k, v in group.items() if k != "params"}, [names(p) for p in group["params"]]]
        for group in groups
    ]


class InOrder(NamedTuple):
    """What a group maker asks of a map: torch's names, shapes and order, of torch's own axes."""

    entries: list
    torch_names: list

    @classmethod
    def of(cls, shapes):
        from jaxopt_port.interop import Entry

        entries = [
            Entry(name.replace(".", "/"), name, shape, "float32") for name, shape in shapes.items()
        ]
        return cls(entries, list(shapes))


def unequal(theirs, ours) -> int:
    longest = max(len(theirs), len(ours))
    return longest - sum(a == b for a, b in zip(theirs, ours, strict=False))


def groups_of_timm() -> list[Compared]:
    import timm
    import timm.optim

    found = {}
    for model_name in MODELS:
        model = timm.create_model(model_name)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        tree, kept = tree_of(shapes), list(getattr(model, "no_weight_decay", set)())
        names = {id(p): name for name, p in model.named_parameters()}
        more = {
            "param_groups_weight_decay": {},
            "param_groups_layer_decay": {"group_matcher": model.group_matcher(coarse=False)},
        }
        for name, own in more.items():
            given = {"weight_decay": 0.05, "no_weight_decay_list": kept}
            theirs = getattr(timm.optim, name)(model, **given)
            mapped = InOrder.of(shapes)
            ours = getattr(contrib, name)(tree, **given, **own, param_map=mapped)
            pair = (
                in_order(theirs, lambda p, names=names: names[id(p)]),
                in_order(ours, lambda path: path.replace("/", ".")),
            )
            found.setdefault(name, []).append((unequal(*pair), len(theirs)))
    return [of_groups("timm", name, name, of) for name, of in found.items()]


def of_groups(package, name, here, found) -> Compared:
    apart, whole = (sum(numbers) for numbers in zip(*found, strict=True))
    return Compared(package, name, here, len(found), apart, whole, "groups")


def groups_of_transformers() -> list[Compared]:
    import transformers
    from transformers.trainer import Trainer

    found = []
    for kind, more in TRANSFORMERS.items():
        make = getattr(transformers, f"{kind}Config")
        known = make().to_dict()
        config = make(**more, **{k: v for k, v in SMALL.items() if k in known and k not in more})
        model = getattr(transformers, f"{kind}Model")(config)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        decayed = set(Trainer.get_decay_parameter_names(None, model))
        norms = [n for n, child in model.named_modules() if isinstance(child, torch.nn.LayerNorm)]
        ours = contrib.param_groups_decay_names(
            tree_of(shapes), 0.1, layer_norms=norms, param_map=InOrder.of(shapes)
        )
        theirs = [
            [{"weight_decay": 0.1}, [name for name in shapes if name in decayed]],
            [{"weight_decay": 0.0}, [name for name in shapes if name not in decayed]],
        ]
        found.append((unequal(theirs, in_order(ours, lambda p: p.replace("/", "."))), len(theirs)))
    name = "Trainer.get_decay_parameter_names"
    return [of_groups("transformers", name, "param_groups_decay_names", found)]


def groups_of_mup() -> list[Compared]:
    rows = []
    for name in mup_cases.OPTIMIZERS:
        found = []
        for apart in (False, True):
            theirs = mup_cases.theirs(name, apart)
            ours = mup_cases.plain(mup_cases.ours(name, apart), mup_cases.NAMES.get)
            found.append((unequal(theirs, ours), len(theirs)))
        rows.append(of_groups("mup", name, "param_groups_mup", found))
    return rows


def not_as_recorded() -> list[str]:
    """Which of timm's schedules are not, to the bit, those that were recorded."""
    found, expected = recorded_schedules(), json.loads(RECORDED_SCHEDULES.read_text())
    return [name for name, of in found.items() if of["digest"] != expected[name]["digest"]]


# By the package that it needs; None is what is written in the tests.
COMPARISONS = [
    ("transformers", of_transformers),
    ("timm", of_timm),
    (None, of_detectron2),
    (None, of_noam),
    ("timm", groups_of_timm),
    ("transformers", groups_of_transformers),
    ("mup", groups_of_mup),
]


def compared() -> list[Compared]:
    rows = []
    for package, compare in COMPARISONS:
        if package is None or importlib.util.find_spec(package) is not None:
            rows += compare()
        else:
            print(f"{package} is not installed: left out")
    return rows


def table(rows) -> str:
    head = "| package | name | here | cases | beside it |\n| --- | --- | --- | ---: | --- |\n"
    return head + "\n".join(map(str, rows))
