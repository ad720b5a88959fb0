"""transformers' BERT, 58 tensors, crosses into Flax by name, and its training goes on there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxopt_port as jp
from jaxopt_port._compat import as_pure
from jaxopt_port.interop import (
    LayerDifferenceWarning,
    ParamMap,
    optimizer_from_torch,
    param_map,
    params_from_torch,
    params_to_torch,
)
from parity_tests.oracles.bert import Bert
from parity_tests.oracles.tolerances import bound

transformers = pytest.importorskip("transformers", reason="the model that was not written here")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TORCH_STEPS, STEPS = 3, 10


def _config() -> Any:
    return transformers.BertConfig(
        vocab_size=61,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _torch_bert(dtype: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = transformers.BertForMaskedLM(_config())
        for param in net.parameters():  # norms and biases too are other than they begin
            param.detach().add_(0.1 * torch.randn(param.shape))
    return net.to(DTYPES[dtype])


def _flax_bert(dtype: str) -> Any:
    return nnx.eval_shape(lambda: Bert(_config(), jnp.dtype(dtype), nnx.Rngs(0)))


def _map(net: Any, model: Any) -> ParamMap:
    # All that differs: the padding token's row, which the batches below do without.
    with pytest.warns(
        LayerDifferenceWarning, match=r"^bert\.embeddings\.word_embeddings"
    ) as caught:
        made = param_map(net, model)
    assert len(caught) == 1
    assert made.notes == ()
    return made


def _batches(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(20240229)
    tokens, labels = rng.integers(1, 61, (2, n, 2, 12), dtype=np.int32)
    return tokens, labels


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tensor_crosses_by_name_and_the_outputs_agree(dtype: str, x64: None) -> None:
    net, model = _torch_bert(dtype), _flax_bert(dtype)
    made = _map(net, model)
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == 58
    assert made.torch_names == tuple(names)
    assert sorted(entry.torch_name for entry in made.entries) == sorted(names)
    assert made.aliases == {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    (tokens,), _ = _batches(1)
    state = params_from_torch(net, model, made)
    got = jax.jit(lambda state, x: nnx.merge(nnx.graphdef(model), state)(x))(state, tokens)
    want = net(input_ids=torch.from_numpy(tokens).long()).logits.detach().numpy()
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error < bound(f"a transformer in {dtype}")

    back = _torch_bert(dtype)
    for param in back.parameters():
        param.detach().zero_()
    params_to_torch(state, back, made)
    for (name, want), got in zip(net.named_parameters(), back.parameters(), strict=True):
        assert torch.equal(got, want), name


def test_training_goes_on_from_torch_s_state(x64: None) -> None:
    net, model = _torch_bert("float64"), _flax_bert("float64")
    made = _map(net, model)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    tokens, labels = _batches(TORCH_STEPS + STEPS)

    def torch_steps(steps: range) -> list[float]:
        losses = []
        for i in steps:
            optimizer.zero_grad()
            x, y = (torch.from_numpy(each[i]).long() for each in (tokens, labels))
            loss = net(input_ids=x, labels=y).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    torch_steps(range(TORCH_STEPS))
    params = as_pure(params_from_torch(net, model, made))
    names = {id(p): name for name, p in net.named_parameters()}
    order = [names[id(p)] for group in groups for p in group["params"]]
    tx, state = optimizer_from_torch(optimizer, params, made, param_names=order)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_of(params: Any) -> jax.Array:
            logits = nnx.merge(nnx.graphdef(model), params)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        return *jp.step(tx, grads, state, params), loss

    got = []
    for x, y in zip(tokens[TORCH_STEPS:], labels[TORCH_STEPS:], strict=True):
        params, state, loss = step(params, state, x, y)
        got.append(loss.item())
    want = torch_steps(range(TORCH_STEPS, TORCH_STEPS + STEPS))
    np.testing.assert_allclose(got, want, rtol=bound("a transformer in float64"))
    there = params_from_torch(net, model, made)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(there), strict=True):
        assert np.abs(a - b).max() <= bound("a transformer's training") * np.abs(b).max()
