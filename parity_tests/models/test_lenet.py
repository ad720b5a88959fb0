"""The Flax LeNets compute what torch's does: outputs, gradients, pooling's choice, convolution."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from jax import lax

from jaxopt_port._compat import as_pure
from jaxopt_port.engine import leaf_paths
from jaxopt_port.interop import params_from_torch
from jaxopt_port.models import LeNet, LinenLeNet
from jaxopt_port.verify.cases import Net, load_digits

BATCH = 32
TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class Flax(NamedTuple):
    like: Any
    apply: Callable[[Any, jax.Array], jax.Array]


# Parameters come from torch: only their shapes are asked of Flax, whose random numbers take seconds
# to compile.
def _nnx(param_dtype: Any = jnp.float32) -> Flax:
    graph, state = nnx.split(
        nnx.eval_shape(lambda: LeNet(param_dtype=param_dtype, rngs=nnx.Rngs(0)))
    )
    return Flax(as_pure(state), lambda params, x: nnx.merge(graph, params)(x))


def _linen(param_dtype: Any = jnp.float32) -> Flax:
    model = LinenLeNet(param_dtype)
    images = jnp.zeros((1, 3, 32, 32), param_dtype)
    return Flax(jax.eval_shape(model.init, jax.random.key(0), images), model.apply)


FLAX = {"nnx": _nnx, "linen": _linen}
INITIALISED = {
    "nnx": lambda: as_pure(nnx.state(LeNet(rngs=nnx.Rngs(0)))),
    "linen": lambda: LinenLeNet().init(jax.random.key(0), jnp.zeros((1, 3, 32, 32))),
}


class Objective(NamedTuple):
    """A scalar whose gradient is that of ``output.backward(cotangent)`` or of a loss."""

    in_torch: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    in_jax: Callable[[jax.Array, jax.Array], jax.Array]


OBJECTIVES = {
    "cross entropy": Objective(
        F.cross_entropy,
        lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z, y).mean(),
    ),
    # The tutorial's output.backward(output): the cotangent is the output's value.
    "own output": Objective(
        lambda z, _: (z * z.detach()).sum(), lambda z, _: (z * lax.stop_gradient(z)).sum()
    ),
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.train_images[:BATCH], data.train_labels[:BATCH]


def make_net(dtype: str) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().to(TORCH_DTYPES[dtype])


def run_torch(objective: Objective, dtype: str, compute: str, digits: Any) -> dict[str, np.ndarray]:
    """Round parameters and images to ``dtype``, then compute in ``compute``."""
    net = make_net(dtype).to(TORCH_DTYPES[compute])
    images, labels = (torch.tensor(a) for a in digits)
    out = net(images.to(TORCH_DTYPES[dtype]).to(TORCH_DTYPES[compute]))
    objective.in_torch(out, labels.long()).backward()
    gradients = {
        # Written out here, so that the mapping under test is not its own witness.
        name.replace("weight", "kernel").replace(".", "/"): p.grad.double()
        .permute({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[p.ndim])
        .numpy()
        for name, p in net.named_parameters()
    }
    return {"output": out.detach().double().numpy(), **gradients}


@functools.cache
def compiled(flax: str, dtype: str) -> Any:
    """Output and gradients of a weighted sum of the objectives: one program for all of them."""
    apply = FLAX[flax]().apply

    def weighted(params: Any, images: jax.Array, labels: jax.Array, weights: Any) -> Any:
        out = apply(params, images)
        values = [objective.in_jax(out, labels) for objective in OBJECTIVES.values()]
        return sum(w * v for w, v in zip(weights, values, strict=True)), out

    return jax.jit(jax.grad(weighted, has_aux=True))


def run_jax(flax: str, objective: str, dtype: str, digits: Any) -> dict[str, np.ndarray]:
    with jax.enable_x64(dtype == "float64"):
        params = params_from_torch(make_net(dtype), FLAX[flax]().like)
        weights = [jnp.asarray(name == objective, dtype) for name in OBJECTIVES]
        images, labels = jnp.asarray(digits[0], dtype), jnp.asarray(digits[1])
        gradients, out = compiled(flax, dtype)(params, images, labels, weights)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((out, gradients))} == {dtype}
    return {
        "output": np.asarray(out, np.float64),
        **{
            path.removeprefix("params/"): np.asarray(gradient, np.float64)
            for path, gradient in leaf_paths(gradients)
        },
    }


def relative_errors(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, float]:
    """Norm of the difference over the norm of ``want``, for the output and each gradient."""
    assert got.keys() == want.keys()
    return {
        name: float(np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name]))
        for name in want
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("flax", FLAX)
def test_float64_outputs_and_gradients_are_torchs(flax: str, objective: str, digits: Any) -> None:
    got = run_jax(flax, objective, "float64", digits)
    want = run_torch(OBJECTIVES[objective], "float64", "float64", digits)
    # Sums of up to 25,088 products (the first bias: 32 images of 28×28), in another order than
    # torch's: 1.4e-15 is the most measured, and one wrong term shows at 1e-5.
    for name, error in relative_errors(got, want).items():
        assert error < 1e-13, name


# How many times as far from the exact result as torch ours may be. Both round as often, in another
# order, so that the errors are alike in size without being equal.
ERROR_OVER_TORCHS = {
    # Measured 0.14 to 1.7.
    "float32": 3.0,
    # Measured 0.16 to 1.3 for outputs and kernels, to 4.5 for biases: the gradient of a broadcast
    # is a bfloat16 sum in XLA, which rounds on the way, while torch's sum rounds once.
    "bfloat16": 6.0,
}


@pytest.mark.parametrize(
    ("flax", "objective", "dtype"),
    [(*p, dtype) for p in zip(FLAX, OBJECTIVES, strict=True) for dtype in ERROR_OVER_TORCHS],
)
def test_rounding_is_no_worse_than_torchs(
    flax: str, objective: str, dtype: str, digits: Any
) -> None:
    exact = run_torch(OBJECTIVES[objective], dtype, "float64", digits)
    ours = relative_errors(run_jax(flax, objective, dtype, digits), exact)
    theirs = relative_errors(run_torch(OBJECTIVES[objective], dtype, dtype, digits), exact)
    for name in exact:
        assert ours[name] <= ERROR_OVER_TORCHS[dtype] * theirs[name], name


PATHS = {
    "features/0/kernel": (5, 5, 3, 6),
    "features/0/bias": (6,),
    "features/3/kernel": (5, 5, 6, 16),
    "features/3/bias": (16,),
    "classifier/0/kernel": (400, 120),
    "classifier/0/bias": (120,),
    "classifier/2/kernel": (120, 84),
    "classifier/2/bias": (84,),
    "classifier/4/kernel": (84, 10),
    "classifier/4/bias": (10,),
}


@pytest.mark.parametrize("flax", FLAX)
def test_paths_carry_torchs_indices(flax: str) -> None:
    leaves = leaf_paths(FLAX[flax]().like)
    assert {path.removeprefix("params/"): leaf.shape for path, leaf in leaves} == PATHS


@pytest.mark.parametrize("flax", FLAX)
def test_initialisation_has_torchs_distribution(flax: str) -> None:
    ours = {path.removeprefix("params/"): leaf for path, leaf in leaf_paths(INITIALISED[flax]())}
    for name in {path.rpartition("/")[0] for path in PATHS}:
        kernel = np.asarray(ours[f"{name}/kernel"], np.float64)
        bound = np.prod(kernel.shape[:-1]) ** -0.5
        assert np.abs(kernel).max() <= bound
        assert np.abs(ours[f"{name}/bias"]).max() <= bound
        # The variance of U(-b, b) is b²/3; 450 draws or more give it to within a tenth.
        assert np.var(kernel) == pytest.approx(bound**2 / 3, rel=0.1)
        assert len(np.unique(ours[f"{name}/bias"])) > 1


def test_models_share_a_graph_so_that_a_second_does_not_retrace() -> None:
    def graph(seed: int) -> nnx.GraphDef:
        return nnx.graphdef(nnx.eval_shape(lambda: LeNet(rngs=nnx.Rngs(seed))))

    first, second = graph(0), graph(1)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("flax", FLAX)
def test_param_dtype(flax: str, param_dtype: Any) -> None:
    like, apply = FLAX[flax](param_dtype)
    images = jax.ShapeDtypeStruct((1, 3, 32, 32), param_dtype)
    out = jax.eval_shape(apply, like, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((like, out))} == {jnp.dtype(param_dtype)}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32, 3), (1, 3, 28, 28)])
@pytest.mark.parametrize("flax", FLAX)
def test_images_of_another_shape_are_refused(flax: str, shape: tuple[int, ...]) -> None:
    like, apply = FLAX[flax]()
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\); got \(" + ", ".join(map(str, shape))):
        jax.eval_shape(apply, like, jax.ShapeDtypeStruct(shape, jnp.float32))
