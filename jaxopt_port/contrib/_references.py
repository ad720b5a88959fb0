"""Which class of which torch package each optimizer here is the twin of."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..engine import Optimizer
from ._adabelief import AdaBelief
from ._adafactor import Adafactor
from ._adafactor_big_vision import AdafactorBigVision
from ._adam8bit import Adam8bit
from ._adamw8bit import AdamW8bit
from ._adamw_schedule_free import AdamWScheduleFree
from ._adan import Adan
from ._ademamix import AdEMAMix
from ._adopt import Adopt
from ._came import CAME
from ._dadapt_adagrad import DAdaptAdaGrad
from ._dadapt_adam import DAdaptAdam
from ._dadapt_adan import DAdaptAdan
from ._dadapt_lion import DAdaptLion
from ._dadapt_sgd import DAdaptSGD
from ._kron import Kron
from ._lamb import Lamb
from ._laprop import LaProp
from ._lars import Lars
from ._left_out import LEFT_OUT
from ._lion import Lion
from ._madgrad import MADGRAD
from ._mars import Mars
from ._muon import Muon
from ._nadamw import NAdamW
from ._prodigy import Prodigy
from ._radam_schedule_free import RAdamScheduleFree
from ._reference import Reference
from ._rmsprop_tf import RMSpropTF
from ._sgd_schedule_free import SGDScheduleFree
from ._sgdw import SGDW
from ._soap import SOAP


def _refuse(package: str, other: str, name: str, sign: str) -> None:
    has = "has no" if package == "timm" else "has"
    raise ValueError(
        f"the state dict is not that of {package}'s {name}: a group {has} {sign!r}, as that of "
        f'{other}\'s; of that, pass optimizer_name="{other}.{name}"'
    )


def _read_timm_lion(group: dict[str, Any]) -> dict[str, Any]:
    if "maximize" not in group:
        _refuse("timm", "lion-pytorch", "Lion", "maximize")
    return group


def _read_transformers_adafactor(group: dict[str, Any]) -> dict[str, Any]:
    if "eps_scale" in group:
        _refuse("transformers", "timm", "Adafactor", "eps_scale")
    return group


def _read_timm_adafactor(group: dict[str, Any]) -> dict[str, Any]:
    if "eps_scale" not in group:
        _refuse("timm", "transformers", "Adafactor", "eps_scale")
    own = {**group, "eps": (group["eps"], group["eps_scale"])}
    del own["eps_scale"]
    # Where the step is relative, the last rate is kept there, and nothing reads it.
    return {**own, "lr": None} if group["relative_step"] else own


def _write_timm_adafactor(group: dict[str, Any]) -> dict[str, Any]:
    eps, eps_scale = group["eps"]
    return {**group, "eps": eps, "eps_scale": eps_scale}


def _write_mars(group: dict[str, Any]) -> dict[str, Any]:
    same = LEFT_OUT in group["betas_1d"]
    return {**group, "betas_1d": group["betas"]} if same else group


def _read_big_vision(group: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k != "momentum_dtype"}


def _read_schedule_free(group: dict[str, Any]) -> dict[str, Any]:
    if group["k"] and not group.get("train_mode", True):
        raise ValueError(
            "the optimizer is in evaluation mode, and its parameters are not those of training: "
            "call optimizer.train(), and take over both"
        )
    return group


def _write_schedule_free(group: dict[str, Any]) -> dict[str, Any]:
    # The parameters here are those of training; without it, train() would move them again.
    return {**group, "train_mode": True}


def _read_prodigy(held: dict[str, Any]) -> dict[str, Any]:
    """Return a state whose first parameter has its shape: where all of it is zero, it has none."""
    if "p0" in held and not np.shape(held["p0"]):
        return {**held, "p0": 0 * held["s"]}
    return held


def _read_dadapt(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group whose first estimate is the one that it has: no step asks for another."""
    return {**group, "d0": group["d"]}


def _write_dadapt(group: dict[str, Any]) -> dict[str, Any]:
    own = {k: v for k, v in group.items() if k != "d0"}
    return {"d": group["d0"], **own}


_KRON_DTYPES = ("mu_dtype", "precond_dtype")


def _read_kron(group: dict[str, Any]) -> dict[str, Any]:
    for name in _KRON_DTYPES:
        if group.get(name) is not None:
            raise ValueError(f"Kron has no {name} here: it is {group[name]} there")
    if callable(group.get("preconditioner_update_probability")):
        raise ValueError(
            "preconditioner_update_probability is a function there, which a state dict cannot say; "
            "make jaxopt_port.contrib.Kron with it, as a schedule, and load its state dict"
        )
    return {k: v for k, v in group.items() if k not in _KRON_DTYPES}


def _write_kron(group: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k != "seed"}


def _read_kron_state(held: dict[str, Any]) -> dict[str, Any]:
    own = {k: v for k, v in held.items() if k != "Q"}
    return own | {f"Q_{i}": q for i, q in enumerate(held["Q"])}


def _write_kron_state(held: dict[str, Any]) -> dict[str, Any]:
    factors = [held.pop(f"Q_{i}") for i in range(len(held)) if f"Q_{i}" in held]
    return {**held, "Q": factors}


def _read_soap(group: dict[str, Any]) -> dict[str, Any]:
    if group.get("merge_dims"):
        raise ValueError("SOAP has no merge_dims here: it is True there")
    return {k: v for k, v in group.items() if k != "merge_dims"}


def _write_soap(group: dict[str, Any]) -> dict[str, Any]:
    beta = group["shampoo_beta"]
    return {**group, "shampoo_beta": group["betas"][1] if beta is None else beta}


_BY_AXIS = ("GG", "Q")


def _read_soap_state(held: dict[str, Any]) -> dict[str, Any]:
    """Return a state without lists by axis, in which an empty one is nothing."""
    own = {k: v for k, v in held.items() if k not in _BY_AXIS}
    for name in _BY_AXIS:
        own |= {f"{name}_{i}": v for i, v in enumerate(held[name]) if len(v)}
    return own


def _write_soap_state(held: dict[str, Any]) -> dict[str, Any]:
    axes = range(np.ndim(held["exp_avg"]))
    lists = {name: [held.pop(f"{name}_{i}", []) for i in axes] for name in _BY_AXIS}
    return {**held, **lists}


def _read_torchao(group: dict[str, Any]) -> dict[str, Any]:
    return {**group, "lr": float(group["lr"])}


def _write_torchao(group: dict[str, Any]) -> dict[str, Any]:
    # A rate that is no tensor is refused there.
    return {**group, "lr": np.asarray(group["lr"], np.float32)}


def _read_codes(held: dict[str, Any]) -> dict[str, Any]:
    """Return a state with codes and scales of their own, of one whose tensors have both."""
    own: dict[str, Any] = {}
    for name, value in held.items():
        if hasattr(value, "codes"):
            own |= {name: value.codes, f"{name}_scale": value.scale}
        else:
            own[name] = value
    return own


def _with_codes(optimizer: Any, param: Any, held: dict[str, Any]) -> dict[str, Any]:
    """Undo it, with the optimizer's own tensors."""
    made = {name: value for name, value in held.items() if not name.endswith("_scale")}
    for name in made:
        if (scales := held.get(f"{name}_scale")) is not None:
            block_size = made[name].numel() // scales.numel()
            own = optimizer._subclass_zeros(param, name == "exp_avg", block_size)
            own.codes.copy_(made[name])
            own.scale.copy_(scales)
            made[name] = own
    return made


def _twin(package: str, module: str, optimizer: type[Optimizer], **how: Any) -> Reference:
    """Return what a class is that has the name of its twin."""
    return Reference(package, module, optimizer.__name__, optimizer, **how)


_timm = functools.partial(_twin, "timm", "timm.optim")
_torchao = functools.partial(
    _twin,
    "torchao",
    "torchao.optim",
    attributes={k: (k, k) for k in ("block_size", "bf16_stochastic_round")},
    read=_read_torchao,
    write=_write_torchao,
    read_state=_read_codes,
    tensors=_with_codes,
)
_pytorch_optimizer = functools.partial(
    _twin, "pytorch_optimizer", "pytorch_optimizer", counts=("step",), in_groups=("step",)
)
_schedule_free = functools.partial(
    _twin,
    "schedulefree",
    "schedulefree",
    counts=("k",),
    in_groups=("k", "weight_sum", "lr_max"),
    wide=("weight_sum", "lr_max"),
    without=("train_mode", "scheduled_lr"),
    read=_read_schedule_free,
    write=_write_schedule_free,
)


def _dadapt(optimizer: type[Optimizer], *numbers: str) -> Reference:
    return _twin(
        "dadaptation",
        "dadaptation",
        optimizer,
        counts=("step", "k"),
        in_groups=("d", *numbers, "k"),
        wide=("d", *numbers),
        without=("log_every", "fsdp_in_use"),
        read=_read_dadapt,
        write=_write_dadapt,
    )


REFERENCES = (
    _timm(AdaBelief, counts=("step",)),
    _timm(
        Adafactor,
        counts=("step",),
        fixed={"package": "timm"},
        read=_read_timm_adafactor,
        write=_write_timm_adafactor,
    ),
    _torchao(Adam8bit),
    _torchao(AdamW8bit),
    _twin(
        "transformers",
        "transformers.optimization",
        Adafactor,
        counts=("step",),
        fixed={"package": "transformers"},
        read=_read_transformers_adafactor,
    ),
    _timm(
        AdafactorBigVision,
        attributes={"momentum_dtype": ("defaults.momentum_dtype", "momentum_dtype")},
        read=_read_big_vision,
    ),
    _dadapt(DAdaptAdaGrad, "gsq_weighted", "sksq_weighted", "skl1"),
    _dadapt(DAdaptAdam, "numerator_weighted"),
    _dadapt(DAdaptAdan, "gsq_weighted"),
    _dadapt(DAdaptLion, "numerator_weighted"),
    _dadapt(DAdaptSGD, "numerator_weighted", "g0_norm"),
    _timm(Adan, counts=("step",), in_groups=("step",)),
    _timm(Adopt),
    _twin(
        "timm",
        "timm.optim.kron",
        Kron,
        counts=("step", "update_counter"),
        read=_read_kron,
        write=_write_kron,
        read_state=_read_kron_state,
        write_state=_write_kron_state,
    ),
    _timm(
        Lamb,
        in_groups=("step",),
        attributes={"max_grad_norm": ("defaults.max_grad_norm", "max_grad_norm")},
    ),
    _timm(LaProp, wide=("exp_avg_lr_1",)),
    _timm(Lars),
    _timm(Lion, read=_read_timm_lion),
    _twin(
        "lion-pytorch",
        "lion_pytorch",
        Lion,
        attributes={
            "decoupled_weight_decay": ("decoupled_wd", "decoupled_weight_decay"),
            "max_lr_snapshot": ("_init_lr", "lr"),
        },
        fixed={"package": "lion-pytorch"},
    ),
    _timm(MADGRAD, counts=("step",)),
    _timm(Mars, counts=("step",), write=_write_mars),
    Reference("muon", "muon", "SingleDeviceMuon", Muon),
    _twin("muon", "muon", Muon),
    _timm(NAdamW),
    _twin(
        "prodigyopt",
        "prodigyopt",
        Prodigy,
        counts=("step", "k"),
        in_groups=("d", "d_max", "d_numerator", "k"),
        wide=("d", "d_max", "d_numerator"),
        without=("d_denom", "d_hat", "fsdp_in_use"),
        read_state=_read_prodigy,
    ),
    _pytorch_optimizer(AdEMAMix, attributes={"maximize": ("maximize", "maximize")}),
    _pytorch_optimizer(
        CAME, attributes={k: (k, k) for k in ("clip_threshold", "eps1", "eps2", "maximize")}
    ),
    _pytorch_optimizer(
        SOAP,
        copied=("precondition_frequency", "shampoo_beta"),
        attributes={"maximize": ("maximize", "maximize")},
        read=_read_soap,
        write=_write_soap,
        read_state=_read_soap_state,
        write_state=_write_soap_state,
    ),
    _timm(RMSpropTF),
    _timm(SGDW),
    _schedule_free(SGDScheduleFree),
    _schedule_free(AdamWScheduleFree),
    _schedule_free(RAdamScheduleFree),
)


def reference_of(cls: type) -> Reference | None:
    """Return what a class is, if it is known."""
    return next((reference for reference in REFERENCES if reference.fits(cls)), None)


def reference_named(name: str) -> Reference | None:
    """Return a class by its name, with its package before a dot where several have one: timm.Lion.

    Raises:
        TypeError: several packages have a class of that name.
    """
    found = [r for r in REFERENCES if name in (r.name, f"{r.package}.{r.name}")]
    if len(found) > 1:
        names = ", ".join(f"{r.package}.{r.name}" for r in found)
        raise TypeError(f"several packages have an optimizer of the name {name!r}: say {names}")
    return found[0] if found else None


def references_of(factory: Any, options: Mapping[str, Any]) -> list[Reference]:
    """Return the classes whose twin a factory with these options makes."""
    return [
        r
        for r in REFERENCES
        if r.optimizer.factory is factory and options.get("package", r.package) == r.package
    ]
