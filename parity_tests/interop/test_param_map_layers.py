"""Each kind of layer crosses into Flax: outputs and gradients agree, and every bit comes back."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxopt_port.interop import LayerDifferenceWarning, params_from_torch, params_to_torch
from jaxopt_port.interop import param_map as make_map
from jaxopt_port.interop._tensors import array_of
from parity_tests.oracles.layer_cases import CASES, LayerCase, drawn
from parity_tests.oracles.tolerances import bound
from parity_tests.oracles.two_layers import tensor_bytes

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _module(case: LayerCase, dtype: torch.dtype) -> torch.nn.Module:
    """The layer with random numbers in every parameter and buffer, variances positive."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = case.torch()
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.detach().copy_(torch.rand(tensor.shape) + 0.1)
    return module.to(dtype)


def _model(case: LayerCase) -> Any:
    # Shapes only: Flax's random numbers take seconds to compile.
    return nnx.eval_shape(lambda: case.nnx(nnx.Rngs(0)))


def _map(module: Any, model: Any) -> Any:
    with warnings.catch_warnings():
        # The cases of batch normalisation while training; test_layer_differences.py is about them.
        warnings.simplefilter("ignore", LayerDifferenceWarning)
        return make_map(module, model)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_agree(name: str, x64: None) -> None:
    case = CASES[name]
    module, model, inputs = _module(case, torch.float64), _model(case), drawn(case)
    crossing = _map(module, model)
    state = params_from_torch(module, model, crossing)

    want = case.torch_call(module, *map(torch.from_numpy, inputs))
    cotangent = np.random.default_rng(0).normal(size=want.shape)
    want.backward(torch.from_numpy(cotangent))
    grads = {n: array_of(p.grad) for n, p in module.named_parameters() if p.grad is not None}

    graph, params, rest = nnx.split(nnx.merge(nnx.graphdef(model), state), nnx.Param, ...)

    # Not optimised: of so small a program that takes longer than to run it.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def objective(params: Any) -> tuple[Any, Any]:
        def call(params: Any) -> tuple[Any, Any]:
            got = case.nnx_call(
                nnx.merge(graph, params, rest, copy=True), *map(jnp.asarray, inputs)
            )
            return (got * cotangent).sum(), got

        return jax.grad(call, has_aux=True)(params)

    got_grads, got = objective(params)
    tolerance = bound("a layer in float64")
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=tolerance, atol=tolerance)
    flat = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(got_grads)}
    laid_out = crossing.from_torch(grads, strict=False)
    assert laid_out.keys() == flat.keys()
    for path, leaf in flat.items():
        np.testing.assert_allclose(
            leaf, laid_out[path], rtol=tolerance, atol=tolerance, err_msg=path
        )


@pytest.mark.parametrize("name", CASES)
def test_every_dtype_comes_back_bit_for_bit(name: str) -> None:
    case = CASES[name]
    model = _model(case)
    for dtype in DTYPES:
        source, target = _module(case, dtype), case.torch().to(dtype)
        crossing = _map(source, model)
        state = params_from_torch(source, model, crossing)
        counters = {n: b.clone() for n, b in target.named_buffers() if not b.is_floating_point()}
        params_to_torch(state, target, crossing)
        for held, tensor in target.state_dict().items():
            want = counters.get(held, source.state_dict()[held])
            assert tensor_bytes(tensor) == tensor_bytes(want), held
        rebuilt = params_to_torch(state, None, crossing)
        fresh = case.torch().to(dtype)
        fresh.load_state_dict(rebuilt)  # strict: all names, tied ones too
        assert [tensor_bytes(p) for p in fresh.parameters()] == [
            tensor_bytes(p) for p in source.parameters()
        ]
