"""BERT for masked language modelling in Flax NNX, with the attribute names of transformers' own."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Dense(nnx.Module):
    """A linear layer, the residual, and a normalisation: what follows both halves of a layer."""

    def __init__(self, features: int, out: int, config: Any, r: nnx.Rngs) -> None:
        self.dense = nnx.Linear(features, out, rngs=r)
        self.LayerNorm = nnx.LayerNorm(out, epsilon=config.layer_norm_eps, rngs=r)

    def __call__(self, x: jax.Array, residual: jax.Array) -> jax.Array:
        return self.LayerNorm(self.dense(x) + residual)


class SelfAttention(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.heads, width = config.num_attention_heads, config.hidden_size
        self.query, self.key, self.value = (nnx.Linear(width, width, rngs=r) for _ in range(3))

    def __call__(self, x: jax.Array) -> jax.Array:
        of_heads = (*x.shape[:-1], self.heads, -1)
        q, k, v = (layer(x).reshape(of_heads) for layer in (self.query, self.key, self.value))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(x.shape)


class Attention(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.self = SelfAttention(config, r)
        self.output = Dense(config.hidden_size, config.hidden_size, config, r)


class Intermediate(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.dense = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=r)
        self.intermediate_act_fn = functools.partial(nnx.gelu, approximate=False)


class Layer(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.attention = Attention(config, r)
        self.intermediate = Intermediate(config, r)
        self.output = Dense(config.intermediate_size, config.hidden_size, config, r)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.attention.output(self.attention.self(x), x)
        inner = self.intermediate.intermediate_act_fn(self.intermediate.dense(x))
        return self.output(inner, x)


class Embeddings(nnx.Module):
    def __init__(self, config: Any, dtype: Any, r: nnx.Rngs) -> None:
        width = config.hidden_size
        embed = functools.partial(nnx.Embed, features=width, dtype=dtype, rngs=r)
        self.word_embeddings = embed(config.vocab_size)
        self.position_embeddings = embed(config.max_position_embeddings)
        self.token_type_embeddings = embed(config.type_vocab_size)
        self.LayerNorm = nnx.LayerNorm(width, epsilon=config.layer_norm_eps, rngs=r)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        words = self.word_embeddings(tokens)
        places = self.position_embeddings(jnp.arange(tokens.shape[1]))
        return self.LayerNorm(words + places + self.token_type_embeddings(jnp.zeros_like(tokens)))


class Encoder(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.layer = nnx.List([Layer(config, r) for _ in range(config.num_hidden_layers)])


class Body(nnx.Module):
    def __init__(self, config: Any, dtype: Any, r: nnx.Rngs) -> None:
        self.embeddings = Embeddings(config, dtype, r)
        self.encoder = Encoder(config, r)


class Transform(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.dense = nnx.Linear(config.hidden_size, config.hidden_size, rngs=r)
        self.transform_act_fn = functools.partial(nnx.gelu, approximate=False)
        self.LayerNorm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=r)


class Predictions(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.transform = Transform(config, r)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))


class Head(nnx.Module):
    def __init__(self, config: Any, r: nnx.Rngs) -> None:
        self.predictions = Predictions(config, r)


class Bert(nnx.Module):
    """Logits of tokens of shape (N, length); the embedding is the output's matrix too."""

    def __init__(self, config: Any, dtype: Any, r: nnx.Rngs) -> None:
        self.bert = Body(config, dtype, r)
        self.cls = Head(config, r)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.bert.embeddings(tokens)
        for layer in self.bert.encoder.layer:
            x = layer(x)
        head = self.cls.predictions
        x = head.transform.transform_act_fn(head.transform.dense(x))
        words = self.bert.embeddings.word_embeddings
        return words.attend(head.transform.LayerNorm(x)) + head.bias[...]
