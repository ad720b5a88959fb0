"""What someone new meets in the first hour: each is right at once, or says what to write."""

import functools
import io
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxopt_port as jp
import jaxopt_port.flax
from jaxopt_port import interop
from jaxopt_port import lr_scheduler as lrs


class LayerNorm(torch.nn.Module):
    """As nanoGPT's: torch's name, and none of its attributes."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(torch.full((size,), x)) for x in (2.0, 3.0))

    def forward(self, x):
        return torch.nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Headed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = torch.nn.ModuleDict({"ln": LayerNorm(4), "fc": torch.nn.Linear(4, 4)})


class Flat(nnx.Module):
    def __init__(self, rngs):
        self.ln = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(4, 4, rngs=rngs)


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.drop = nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)


def test_a_class_with_torchs_name_and_a_prefix_that_the_tree_has_not():
    module, model = Headed(), Flat(nnx.Rngs(0))
    made = interop.param_map(module, model)
    assert any("'transformer.'" in note for note in made.notes)
    params = interop.params_from_torch(module, model)
    np.testing.assert_array_equal(params["ln"]["scale"][...], 2.0)
    kernel = module.transformer["fc"].weight.detach().numpy().T
    np.testing.assert_array_equal(params["fc"]["kernel"][...], kernel)
    optimizer = torch.optim.AdamW(module.parameters())
    _, state = interop.optimizer_from_torch(optimizer, params, module)
    assert jp.get_hyperparams(state)[0]["weight_decay"] == 0.01


def test_an_optimizer_takes_the_rules_for_names_that_its_parameters_took():
    module, rules = torch.nn.Sequential(torch.nn.Linear(4, 4)), [("^0", "fc")]
    like = {"fc": {"weight": jnp.ones((4, 4)), "bias": jnp.ones(4)}}
    both = {"rename": rules, "layouts": {"0.weight": (1, 0)}}
    params = interop.params_from_torch(module, like, **both)
    optimizer = torch.optim.SGD(module.parameters(), momentum=0.9)
    module(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    _, state = interop.optimizer_from_torch(optimizer, params, module, **both)
    held = optimizer.state[module[0].weight]["momentum_buffer"].numpy()
    np.testing.assert_array_equal(state.leaves["momentum_buffer"]["fc"]["weight"], held.T)
    mapped = interop.param_map(module, like, **both)
    with pytest.raises(TypeError, match="rename and layouts make the map; it is given"):
        interop.optimizer_from_torch(optimizer, params, mapped, rename=rules)


def test_a_prefix_stays_where_the_rest_does_not_fit():
    with pytest.raises(ValueError, match=r'"?transformer\.'):
        interop.params_from_torch(Headed(), {"fc": {"kernel": jnp.ones((4, 4))}})


def test_nothing_is_not_taken_over_in_silence():
    like = {"other": {"kernel": jnp.ones((4, 4))}}
    with pytest.raises(ValueError, match=r"none of torch's tensors is a leaf.*rename="):
        interop.params_from_torch(Headed(), like, strict=False)


def test_a_tree_without_weights_takes_none():
    like = nnx.state(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    assert interop.params_from_torch(torch.nn.Dropout(0.5), like, strict=False) is not None


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (lambda m: nnx.state(m), TypeError, r"count.*uint32.*nnx\.split\(model, nnx\.Param"),
        (lambda m: nnx.state(m, nnx.Any(nnx.Param, nnx.BatchStat)), TypeError, "running statistic"),
        (
            lambda m: {"params": {"scale": jnp.ones(3)}, "batch_stats": {"mean": jnp.ones(3)}},
            TypeError,
            r'"batch_stats/mean" is a running statistic.*variables\["params"\]',
        ),
    ],
    ids=["random streams", "running statistics", "Linen's"],
)
def test_the_parameters_alone(state, error, message):
    held = state(Normed(nnx.Rngs(0)))
    with pytest.raises(error, match=message):
        jp.AdamW().init(held)


def test_running_statistics_may_be_frozen():
    held = nnx.state(Normed(nnx.Rngs(0)), nnx.Any(nnx.Param, nnx.BatchStat))
    groups = [{"params": ["**/scale", "**/bias"]}, {"params": jp.REST, "frozen": True}]
    assert jp.AdamW(groups).init(held) is not None


TX = jp.SGD(lr=0.1)


@pytest.mark.parametrize(
    "made",
    [
        lambda: lrs.StepLR(TX, 30),
        lambda: lrs.StepLR(TX, step_size=1),
        lambda: lrs.StepLR(optimizer=TX, step_size=1),
        lambda: lrs.LambdaLR(TX, len),
        lambda: lrs.StepLR(torch.optim.SGD([torch.ones(1)]), 30),
        lambda: lrs.StepLR(nnx.Optimizer(Flat(nnx.Rngs(0)), TX, wrt=nnx.Param), 30),
        lambda: lrs.StepLR(TX.init(jnp.ones(2)), 30),
        lambda: lrs.ChainedScheduler([lrs.StepLR(30)], TX),
        lambda: jp.contrib.get_linear_schedule_with_warmup(TX, 10, 100),
        lambda: jp.contrib.get_scheduler("cosine", TX, 10, 100),
        lambda: jp.contrib.get_scheduler("cosine", optimizer=TX, num_warmup_steps=10),
    ],
)
def test_a_scheduler_takes_no_optimizer(made):
    with pytest.raises(TypeError, match=r"takes no optimizer here.*scheduler\.init\(tx\.init"):
        made()


@pytest.mark.parametrize(
    "derived", [jax.grad, jax.value_and_grad, lambda loss: lambda p: {"loss": loss(p)}]
)
def test_what_returns_more_than_the_loss(derived):
    params = {"w": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"must return the loss alone.*jax\.grad or jax.value_and"):
        jp.step(TX, derived(lambda p: (p["w"] ** 2).sum()), TX.init(params), params)


def test_a_model_with_more_than_arrays_in_a_step():
    params = {"w": jnp.ones(2)}
    with pytest.raises(TypeError, match=r'the parameter "act" is .*, not an array; keep only'):
        jp.step(TX, params, TX.init(params), {**params, "act": jnp.tanh})


def test_an_optimizer_of_flax_with_its_arguments_exchanged():
    with pytest.raises(TypeError, match="tx must be an Optax transformation"):
        jaxopt_port.flax.Optimizer(TX, Flat(nnx.Rngs(0)), wrt=nnx.Param)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("step", r"jp\.step\(tx, grads"),
        ("zero_grad", "jax.grad returns"),
        ("param_groups", "jp.get_hyperparams"),
        ("state_dict", r"jp\.state_dict\(tx"),
        ("add_param_group", r"jp\.add_param_group\(tx"),
    ],
)
def test_torchs_methods_are_named(name, remedy):
    with pytest.raises(AttributeError, match=f"SGD has no {name}: .*{remedy}"):
        getattr(TX, name)
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        getattr(TX, "no_such")  # noqa: B009
    assert pickle.loads(pickle.dumps(TX)) == TX


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("clip_grad_norm_", r"do not change in place here: jp\.clip_grad_norm returns"),
        ("clip_grad_value_", r"jp\.clip_grad_value returns"),
        ("clip_grads_with_norm_", r"jp\.clip_grads_with_norm returns"),
        ("zero_grad", "jax.grad returns"),
        ("no_grad", "jax.grad is called"),
        ("load", r"interop\.load\(path\)"),
        ("CosineAnnealingLR", r"jp\.lr_scheduler\.CosineAnnealingLR$"),
        ("AveragedModel", r"jp\.swa_utils\.AveragedModel$"),
        ("AdmaW", 'did you mean "AdamW"'),
        ("no_such", "'no_such'$"),
        ("NoSuch_", "'NoSuch_'$"),
    ],
)
def test_torchs_functions_are_named(name, remedy):
    with pytest.raises(AttributeError, match=remedy):
        getattr(jp, name)


LINEAR = torch.nn.Linear(2, 2, bias=False)
WEIGHT = {"kernel": jnp.ones((2, 2))}
CHAIN = optax.chain(optax.clip(1.0), TX)
ADAMW = torch.optim.AdamW
BOTH = "rename and layouts make the map; it is given"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: interop.optimizer_to_torch(CHAIN, CHAIN.init(WEIGHT), WEIGHT, LINEAR),
            "takes an optimizer with groups, .* give the one that is in it, and its part of the st",
        ),
        (lambda: interop.optimizer_to_torch(None, (), WEIGHT, LINEAR), "groups.*; got NoneType$"),
        (lambda: interop.optimizer_to_torch(jp.SGD, (), WEIGHT, LINEAR), "got the class SGD$"),
        (
            lambda: interop.optimizer_to_torch(TX, TX.init(WEIGHT), WEIGHT, LINEAR, LINEAR),
            r"param_map must be what interop.param_map\(module, tree\) returns; got Linear",
        ),
        (lambda: interop.params_from_torch(LINEAR, WEIGHT, LINEAR), "param_map must be .*Linear"),
        (lambda: interop.params_to_torch(WEIGHT, LINEAR, LINEAR), "param_map must be .*Linear"),
        *(
            (functools.partial(take, param_map=interop.param_map(LINEAR, WEIGHT), rename=[1]), BOTH)
            for take in (
                functools.partial(interop.params_from_torch, LINEAR, WEIGHT),
                functools.partial(interop.params_to_torch, WEIGHT, LINEAR),
                functools.partial(interop.optimizer_from_torch, {}, WEIGHT),
            )
        ),
        (lambda: interop.with_layout(RUN, "jax", LINEAR), "param_map must be .*got Linear"),
        (lambda: interop.with_layout({}, "jax"), "expected a Checkpoint, got dict"),
        (
            lambda: interop.optimizer_from_torch(CHAIN, WEIGHT, LINEAR),
            "got GradientTransformationExtraArgs, which is an optimizer of JAX's already",
        ),
        (
            lambda: interop.optimizer_from_torch(
                ADAMW(LINEAR.parameters()), WEIGHT, interop.param_map(LINEAR, WEIGHT), module=Flat
            ),
            "module must be torch's module; got",
        ),
        (lambda: interop.likely_class(ADAMW([torch.ones(1)])), "state dict; got AdamW$"),
        (lambda: interop.likely_scheduler(None), "a scheduler's state dict; got NoneType$"),
        (
            lambda: interop.TorchOptimizer(LINEAR.parameters(), ADAMW),
            "must be a factory, as jp.adamw is; got torch's AdamW$",
        ),
    ],
)
def test_what_is_given_in_place_of_another_thing(call, message):
    with pytest.raises(TypeError, match=message):
        call()


RUN = interop.Checkpoint(
    {"w": np.ones(2, np.float32)},
    jp.state_dict(TX, TX.init({"w": jnp.ones(2)}), {"w": jnp.ones(2)}),
    {"_last_lr": [0.1], "last_epoch": 3}, extra={"a\x1b[31m": 3},
)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: interop.scheduler_from_torch(RUN),
            r"a checkpoint does not say which scheduler.*load_state_dict\(run\.scheduler, ",
        ),
        (lambda: interop.scheduler_from_torch({}), "a state dict does not say which scheduler"),
        (lambda: interop.scheduler_from_torch(TX), "one of torch's schedulers; got SGD"),
        (
            lambda: lrs.StepLR(2).load_state_dict(RUN),
            r"got Checkpoint; give its scheduler: load_st",
        ),
        (
            lambda: lrs.StepLR(2).load_state_dict(interop.Checkpoint({})),
            "got Checkpoint; it holds none of a scheduler$",
        ),
        (lambda: lrs.StepLR(2).load_state_dict(3), "a scheduler's state dict is a dict; got int$"),
        (lambda: lrs.ChainedScheduler(lrs.StepLR(2)), "schedulers .* must be a list; got StepLR"),
    ],
    ids=[
        "a checkpoint",
        "a state dict",
        "an optimizer",
        "loaded as one",
        "one without",
        "a number",
        "a scheduler for a list",
    ],
)
def test_what_is_given_for_a_scheduler(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_the_class_of_what_is_no_state_dict_is_not_guessed():
    with pytest.raises(ValueError, match="it has no 'state' and no 'param_groups'; it has 'model'"):
        interop.likely_class({"model": {}})


def test_a_checkpoint_given_for_a_state_dict_names_who_takes_it():
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"it is Checkpoint, not a dict; .*optimizer_from_torch"):
        jp.load_state_dict(TX, RUN, params)


def test_what_is_printed_is_short():
    lines = repr(RUN).splitlines()
    assert lines[0] == "Checkpoint ("
    assert "    params: 1 arrays, 0.0 MB in all" in lines
    assert "    optimizers: optimizer of 1 group" in lines
    assert not any("\x1b" in line for line in lines)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    module = torch.nn.ParameterDict({"w": optimizer.param_groups[0]["params"][0]})
    tx, _ = interop.optimizer_from_torch(optimizer, {"w": jnp.ones(2)}, module)
    assert repr(tx).startswith("AdamW (")


def test_another_function_than_the_saved_one_is_noticed():
    params = {"w": jnp.ones(2)}
    _, state = jp.step(TX, params, TX.init(params), params)
    scheduler = lrs.LambdaLR(lambda epoch: 0.5**epoch)
    state, own = scheduler.init(state)
    for _ in range(3):
        state, own = scheduler.step(state, own)
    saved = scheduler.state_dict(own)
    scheduler.load_state_dict(saved)
    with pytest.warns(UserWarning, match=r"\[0\.0125\], and this schedule has \[0\.1\] at epoch 3"):
        lrs.LambdaLR(lambda epoch: 1.0).load_state_dict(saved)


def test_an_enum_of_transformers_is_its_value(tmp_path):
    """Where transformers is not imported, as for one who has JAX alone."""

    class Kind:
        def __reduce__(self):
            return (_Named, ("linear",))

    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.ones(2)}, "kind": Kind()}, buffer)
    file = tmp_path / "run.pt"
    with zipfile.ZipFile(buffer) as saved, zipfile.ZipFile(file, "w") as renamed:
        for name in saved.namelist():
            renamed.writestr(name, saved.read(name).replace(*_RENAMED))
    assert interop.load(file).extra["kind"] == "linear"


class _Named:
    def __init__(self, value):
        self.value = value


_THERE = f"{__name__}\n_Named\n".encode()
_RENAMED = (_THERE, f"transformers.x\n{'N' * (len(_THERE) - 16)}\n".encode())
