"""Names of real scripts, what wraps modules and optimizers, and optimizers of others."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxopt_port as jp
from jaxopt_port import interop
from jaxopt_port.engine import Rule
from jaxopt_port.interop import CheckpointWarning
from parity_tests.interop.two_linear_layers import LIKE, network, stepped

# ── names ──────────────────────────────────────────────────────────────────────────────────────


class Turned(torch.nn.Module):
    """Two layers of one shape, declared in the other order than a tree sorts them."""

    def __init__(self):
        super().__init__()
        self.b = torch.nn.Linear(3, 3, bias=False)
        self.a = torch.nn.Linear(3, 3, bias=False)


TURNED = {"a": {"kernel": jnp.zeros((3, 3))}, "b": {"kernel": jnp.zeros((3, 3))}}


def turned(groups):
    module = Turned()
    optimizer = stepped(module, torch.optim.SGD(groups(module), lr=0.1, momentum=0.9), 1)
    return module, optimizer, interop.params_from_torch(module, TURNED)


def test_jps_loader_takes_no_dict_of_torchs():
    _, optimizer, params = turned(lambda m: m.parameters())
    saved = interop._torch_state_dict.in_numpy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"no 'param_names'.*interop\.optimizer_from_torch"):
        jp.load_state_dict(jp.SGD(momentum=0.9), saved, params)
    saved["param_groups"][0]["param_names"] = ["b.weight", "a.weight"]
    with pytest.raises(ValueError, match="names of torch's go through"):
        jp.load_state_dict(jp.SGD(momentum=0.9), saved, params)


def test_names_in_the_modules_order_are_not_those_of_the_groups():
    module, optimizer, params = turned(
        lambda m: [{"params": m.a.parameters()}, {"params": m.b.parameters()}]
    )
    mapped = interop.param_map(module, TURNED)
    more = {"optimizer_name": "SGD"}
    names = [name for name, _ in module.named_parameters()]
    with pytest.raises(ValueError, match=r"param_names=\[\[…\], \[…\]\]"):
        interop.optimizer_from_torch(
            optimizer.state_dict(), params, mapped, param_names=names, **more
        )
    with pytest.raises(ValueError, match="allow several divisions or none; pass param_names"):
        interop.optimizer_from_torch(optimizer.state_dict(), params, module, **more)
    _, state = interop.optimizer_from_torch(
        optimizer.state_dict(), params, mapped, param_names=[["a.weight"], ["b.weight"]], **more
    )
    np.testing.assert_allclose(state.leaves["momentum_buffer"]["b"]["kernel"], 0.1)
    np.testing.assert_allclose(state.leaves["momentum_buffer"]["a"]["kernel"], 0.2)


@pytest.mark.parametrize("begun", [2, 1])
def test_an_order_that_only_the_module_suggests_is_said(begun):
    module, optimizer, params = turned(lambda m: m.parameters())
    for parameter in list(module.parameters())[begun:]:
        del optimizer.state[parameter]
    with pytest.warns(CheckpointWarning, match=r"order of module\.named_parameters"):
        _, state = interop.optimizer_from_torch(
            optimizer.state_dict(), params, module, optimizer_name="SGD"
        )
    np.testing.assert_allclose(state.leaves["momentum_buffer"]["b"]["kernel"], 0.1)


@pytest.mark.parametrize("name", ["ASGD", "NAdam"])
def test_a_number_in_a_tensor_of_one_has_no_say_in_the_division(name):
    module = network()
    weights = [module[i].weight for i in (0, 1)]
    biases = [module[i].bias for i in (0, 1)]
    optimizer = getattr(torch.optim, name)([{"params": weights}, {"params": biases}])
    saved = stepped(module, optimizer, 1).state_dict()
    for held in saved["state"].values():
        held |= {key: x.reshape(1) for key, x in held.items() if x.ndim == 0 and key != "step"}
    params = interop.params_from_torch(module, LIKE)
    _, wanted = interop.optimizer_from_torch(optimizer, params, module)
    _, state = interop.optimizer_from_torch(saved, params, module, optimizer_name=name)
    jax.tree.map(np.testing.assert_array_equal, state, wanted)


WRAPPED = {
    "data parallel": torch.nn.DataParallel,
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "twice": lambda m: torch.nn.DataParallel(torch.compile(m, backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_modules_are_looked_through(wrap):
    module = Turned()
    wrapped = wrap(module)
    got = interop.params_from_torch(wrapped, TURNED)
    np.testing.assert_array_equal(got["b"]["kernel"], module.b.weight.detach().T)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    interop.optimizer_from_torch(optimizer, got, wrapped)


PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "model.", "model.module.", "net.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_all_names(tmp_path, prefix):
    module = network()
    saved = {prefix + name: value for name, value in module.state_dict().items()}
    mapped = interop.param_map(saved, LIKE)
    assert any("begin with" in note for note in mapped.notes)
    torch.save(saved, tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        found = interop.load(tmp_path / "a")
    got = interop.params_from_torch(found.params, LIKE, interop.param_map(module, LIKE))
    np.testing.assert_array_equal(got["1"]["kernel"], module[1].weight.detach().T)


def test_an_average_of_a_module_brings_no_counter():
    averaged = torch.optim.swa_utils.AveragedModel(network())
    got = interop.params_from_torch(averaged.state_dict(), {"module": LIKE})["module"]
    kernel = averaged.module[1].weight.detach().T
    np.testing.assert_array_equal(got["1"]["kernel"], kernel)
    np.testing.assert_array_equal(
        interop.params_from_torch(averaged.state_dict(), LIKE)["1"]["kernel"], kernel
    )


def test_a_prefix_that_the_tree_has_too_stays():
    inner = network()
    saved = {f"model.{name}": value for name, value in inner.state_dict().items()}
    mapped = interop.param_map(saved, {"model": LIKE})
    assert mapped.entries[0].torch_name.startswith("model.")
    assert not mapped.notes


class Wrapping:
    """As Accelerate's and Lightning's wrappers are."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


def test_wrapped_optimizers_are_looked_through():
    module, optimizer, params = turned(lambda m: m.parameters())
    _, state = interop.optimizer_from_torch(Wrapping(Wrapping(optimizer)), params, module)
    assert jp.get_hyperparams(state)[0]["momentum"] == 0.9


REPARAMETRISED = {
    "weight norm": torch.nn.utils.weight_norm,
    "weight norm, new": torch.nn.utils.parametrizations.weight_norm,
    "spectral norm": torch.nn.utils.spectral_norm,
    "spectral norm, new": torch.nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.parametrize("change", REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_weights_that_torch_calculates_are_refused_with_the_reason(change):
    module = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(module[0])
    with pytest.raises(ValueError, match=r"torch calculates weight from it .*first, .* or have"):
        interop.param_map(module, LIKE)


def test_layers_whose_weight_is_as_flax_has_it():
    bilinear = torch.nn.Bilinear(2, 2, 2)
    got = interop.params_from_torch(
        bilinear, {"kernel": jnp.zeros((2, 2, 2)), "bias": jnp.zeros(2)}
    )
    np.testing.assert_array_equal(got["kernel"], bilinear.weight.detach())
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(3, 3)
    got = interop.params_from_torch(layer, {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(3)})
    np.testing.assert_array_equal(got["kernel"], layer.weight.detach())


# ── optimizers of others ───────────────────────────────────────────────────────────────────────


class Lion(torch.optim.Optimizer):
    """Signs of an average; Chen et al., 2023."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "odd": 1})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                held = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((held * first + p.grad * (1 - first)).sign(), alpha=-group["lr"])
                held.mul_(second).add_(p.grad, alpha=1 - second)


def _lion(lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    return iter(())


def _lion_update(grad, param, state, *, lr, betas, weight_decay):
    dtype = param.dtype
    held, first, second = state["average"], betas[0].astype(dtype), betas[1].astype(dtype)
    param = param * (1 - lr * weight_decay).astype(dtype)
    param = param - lr.astype(dtype) * jnp.sign(held * first + grad * (1 - first))
    return param, {"average": held * second + grad * (1 - second)}


GRADS = {
    layer: np.random.default_rng(seed).standard_normal((3, 3)).astype(np.float32)
    for seed, layer in enumerate(("a", "b"))
}


def test_a_rule_of_ones_own_takes_the_state_of_anothers_optimizer():
    module = Turned()
    optimizer = Lion(module.parameters(), lr=0.1)
    for layer, grad in GRADS.items():
        getattr(module, layer).weight.grad = torch.from_numpy(grad.copy())
    optimizer.step()
    params = interop.params_from_torch(module, TURNED)
    with pytest.raises(TypeError, match=r'factory=.*state=\{"exp_avg": "exp_avg"\}') as raised:
        interop.optimizer_from_torch(optimizer, params, module)
    assert "AdamW" not in str(raised.value)
    lion = jp.transformation(
        Rule(_lion, lambda param, **_: {"average": jnp.zeros_like(param)}, _lion_update)
    )
    with pytest.warns(CheckpointWarning, match="_lion has no odd"):
        tx, state = interop.optimizer_from_torch(
            optimizer, params, module, factory=lion, state={"exp_avg": "average"}
        )
    for layer in ("a", "b"):
        weight = getattr(module, layer).weight
        average = state.leaves["average"][layer]["kernel"]
        np.testing.assert_array_equal(average, optimizer.state[weight]["exp_avg"].T)
        weight.grad = torch.from_numpy(GRADS[layer].T.copy())
    grads = {layer: {"kernel": jnp.asarray(grad)} for layer, grad in GRADS.items()}
    params, _ = jp.step(tx, grads, state, params)
    optimizer.step()
    for layer in ("a", "b"):
        theirs = getattr(module, layer).weight.detach().T
        np.testing.assert_array_equal(params[layer]["kernel"], theirs)


def test_the_hint_of_a_subclass_is_its_own_base():
    class Mine(torch.optim.RMSprop):
        pass

    module = Turned()
    params = interop.params_from_torch(module, TURNED)
    with pytest.raises(TypeError, match=r'is that of RMSprop: optimizer_name="RMSprop"'):
        interop.optimizer_from_torch(Mine(module.parameters()), params, module)


# ── layouts that change the numbers ────────────────────────────────────────────────────────────

LAYERS = {
    "Muon": (lambda: torch.nn.Linear(8, 16, bias=False), (8, 16), {"lr": 0.02}),
    "Adafactor": (lambda: torch.nn.Conv2d(3, 8, 3, bias=False), (3, 3, 3, 8), {"lr": 0.02}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_of_flax_are_warned_of_and_can_be_shown_as_torchs(name):
    make, shape, options = LAYERS[name]
    layer = make()
    params = interop.params_from_torch(layer, {"kernel": jnp.zeros(shape)})
    optimizer = getattr(torch.optim, name)(layer.parameters(), **options)
    tx = getattr(jp, name)(**options)
    with pytest.warns(jp.engine.LayoutWarning, match=r'"kernel" \(.*in_torch_layout\(tx, params\)'):
        tx.init(params)
    tx = interop.in_torch_layout(tx, params)
    state = tx.init(params)
    mapped = interop.param_map(layer, params)
    for step in range(5):
        grad = np.random.default_rng(step).normal(size=tuple(layer.weight.shape))
        layer.weight.grad = torch.from_numpy(grad.astype(np.float32))
        optimizer.step()
        leaf = mapped.from_torch({"weight": grad.astype(np.float32)})["kernel"]
        params, state = jp.step(tx, {"kernel": leaf}, state, params)
    got = mapped.to_torch({"kernel": np.asarray(params["kernel"])})["weight"]
    far = np.abs(got - layer.weight.detach().numpy()).max()
    assert far < 2e-3 * options["lr"]  # bfloat16 products, and a few units of float32
    assert interop.optimizer_to_torch(tx, state, params, layer).param_groups[0]["lr"] == 0.02


def test_kernels_that_do_not_matter_are_not_warned_of():
    jp.Muon().init({"kernel": jnp.zeros((4, 4))})
    jp.Muon(adjust_lr_fn="match_rms_adamw").init({"kernel": jnp.zeros((4, 8))})
    jp.Muon().init({"weight": jnp.zeros((4, 8))})
    jp.Adafactor().init({"kernel": jnp.zeros((4, 8))})
    jp.AdamW().init({"kernel": jnp.zeros((4, 8, 2))})
    with pytest.raises(ValueError, match="may be the kernel of a convolution or of an attention"):
        interop.in_torch_layout(jp.Adafactor(), {"kernel": jnp.zeros((4, 2, 2))})
    layer, params = torch.nn.Linear(4, 8), {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)}
    for given in (layer, interop.param_map(layer, params)):
        with pytest.raises(TypeError, match=r"second argument is the parameters.*got (L|ParamMap)"):
            interop.in_torch_layout(jp.Muon(), given)
