"""Canaries: what this library takes for granted and its dependencies do not promise, by name."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxopt_port._compat import (
    Forms,
    alternative,
    as_pure,
    carried_by,
    current_trace,
    known_number,
    mixes_elements,
    on_explicit_mesh,
    tagged,
    through_branches,
    varying_axes,
    with_narrow_indices,
)
from jaxopt_port.numerics import fma


@pytest.fixture
def mesh():
    return jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))


def forms_of(program, *args):
    """The form that a program is lowered with: what it returns, by a number."""
    forms = Forms(
        lambda x: [x + 0], one_cpu=lambda x: [x + 1], several=lambda devices, x: [x + devices]
    )
    return program(lambda x: alternative(forms, [x], [jax.typeof(x)])[0])(*args)


def test_lowering_tells_how_many_devices_there_are_and_whether_it_exports():
    zero = jnp.zeros(2)
    assert forms_of(jax.jit, zero)[0] == 1, "one CPU device"
    plain = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(zero, NamedSharding(plain, P("data")))
    assert forms_of(jax.jit, split)[0] == 2, "two devices"
    exported = jax.export.export(jax.jit(lambda x: forms_of(jax.jit, x)))(zero)
    assert exported.call(zero)[0] == 0, "an exported program"


def test_a_lowering_rule_is_given_what_stablehlo_takes():
    """jax.extend.mlir's dialect, and what jax.interpreters.mlir makes of types and constants."""
    made = jax.jit(fma)(jnp.float32(2), jnp.ones(3, jnp.float32), jnp.ones(3, jnp.float32))
    np.testing.assert_array_equal(made, np.full(3, 3, np.float32))
    large = jnp.ones((40, 64), jnp.float32)
    np.testing.assert_array_equal(jax.jit(fma)(jnp.float32(2), large, large), large * 3)


def test_argmax_is_lowered_by_the_setting_of_then_and_not_of_its_trace():
    """Else `with_narrow_indices` may go."""

    def chosen(count):
        return jnp.select([count < 2, count < 4], [0.1, 0.2], 0.3)

    def program(by):
        def run(count):
            with jax.enable_x64(True):
                made = by(jax.lax.convert_element_type(count, jnp.int64))
                return jax.lax.convert_element_type(made, jnp.float32)

        return jax.jit(run)

    whole = program(lambda count: with_narrow_indices(chosen, count))
    assert [float(whole(jnp.int32(c))) for c in (1, 3, 5)] == pytest.approx([0.1, 0.2, 0.3])
    with pytest.warns(UserWarning, match="int64"), pytest.raises(ValueError, match="argmax"):
        program(chosen)(jnp.int32(1))


def test_an_explicit_mesh_is_seen_in_the_type_of_an_array(mesh):
    assert on_explicit_mesh(jax.device_put(jnp.zeros(2), NamedSharding(mesh, P("data"))))
    assert not on_explicit_mesh(jnp.zeros(2))


def test_varying_axes_are_seen_within_shard_map(mesh):
    seen = []

    def note(x):
        seen.append(varying_axes(x))
        return x

    plain = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    jax.shard_map(note, mesh=plain, in_specs=P("data"), out_specs=P("data"))(jnp.zeros(2))
    assert seen == [frozenset({"data"})]
    assert varying_axes(jnp.zeros(2)) == frozenset()


@pytest.mark.parametrize(
    ("function", "mixes"),
    [
        (lambda x: jnp.where(x > 0, jnp.exp(x) ** 1.5, jax.nn.silu(x)), False),
        (lambda x: jax.lax.cond(x.ndim > 0, jnp.sin, jnp.cos, jnp.clip(x, -1, 1)[None])[0], False),
        (lambda x: x / jnp.linalg.norm(x), True),
        (lambda x: x - jax.jit(jnp.mean)(x), True),
        (jnp.cumsum, True),
        (jnp.sort, True),
        (lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 1), (1, 1), "SAME"), True),
        (lambda x: jax.lax.conv(x[None, None], x[None, None], (1, 1), "SAME")[0, 0], True),
        (lambda x: x.at[0].multiply(2.0), True),
        (lambda x: x / jax.lax.reduce(x, 0.0, lambda a, b: a + b * b, (0, 1)), True),
        (lambda x: jax.lax.while_loop(lambda y: False, lambda y: y - y.mean(), x), True),
        (lambda x: jax.lax.while_loop(lambda y: False, lambda y: y * 2, x), False),
        (lambda x: jax.checkpoint(jnp.tanh)(x), False),
        (jnp.flip, True),
        (lambda x: jnp.roll(x, 1), True),
        (lambda x: x + x.T, True),
        (lambda x: x @ x, True),
        (jnp.linalg.inv, True),
        (lambda x: jnp.fft.fft(x).real, True),
        (lambda x: x.at[0].set(x[1]), True),
        (lambda x: jax.lax.scan(lambda c, y: (c + y, c), x[0], x)[1], True),
    ],
)
def test_elements_that_meet_are_seen_in_a_jaxpr(function, mixes):
    assert mixes_elements(function, jnp.eye(3)) is mixes


def test_x64_can_be_enabled_around_a_part_of_a_traced_program():
    @jax.jit
    def program(x):
        with jax.enable_x64(True):
            wide = x.astype(jnp.float64) + 2.0**-40
            return (wide - x).astype(jnp.float32), wide.dtype == jnp.float64

    difference, is_wide = program(jnp.float32(1))
    assert (difference, is_wide) == (2.0**-40, True)


def test_a_scan_tells_what_it_carries():
    program = jax.make_jaxpr(
        lambda a, b, xs: jax.lax.scan(lambda c, x: ((c[0] * a, c[1] + x), c[1]), (a, b), xs)
    )
    (of_scan,) = (e for e in program(1.0, 2.0, jnp.ones(3)).eqns if e.primitive.name == "scan")
    assert carried_by(of_scan.params) == (1, 2)


def test_a_primitive_converts_to_a_weak_type():
    """How foreign factories are given numbers that do not round in bfloat16."""
    from jax.extend.core.primitives import convert_element_type_p

    weak = convert_element_type_p.bind(
        jnp.float32(0.999), new_dtype=np.dtype(np.float32), weak_type=True, sharding=None
    )
    assert (weak * jnp.bfloat16(1)).dtype == jnp.bfloat16


def test_optax_names_an_injection_and_calls_its_factory_from_its_own_file():
    state = optax.inject_hyperparams(optax.sgd)(0.1).init(jnp.zeros(1))
    assert isinstance(state, optax.InjectStatefulHyperparamsState)
    files = []

    def factory(learning_rate):
        files.extend(frame.filename for frame in inspect.stack())
        return optax.sgd(learning_rate)

    optax.inject_hyperparams(factory)(0.1).init(jnp.zeros(1))
    assert optax.inject_hyperparams.__code__.co_filename in files


def test_flax_wraps_the_leaves_of_a_state_and_a_module_finds_the_wrapper():
    from flax.nnx.training import optimizer

    wrapped = optimizer.to_opt_state({"a": jnp.ones(2)})["a"]
    assert hasattr(wrapped, "get_value")
    assert hasattr(wrapped, "replace")


def test_a_constant_is_known_while_it_is_traced():
    """As optax.inject_hyperparams makes its first numbers: an array, cast to a dtype."""
    seen = []

    def init(given):
        seen.extend(map(known_number, (jnp.asarray(0.5, jnp.bfloat16), given, given + 1)))

    jax.eval_shape(init, jnp.float32(2))
    assert seen[0] == 0.5
    assert np.isnan(seen[1:]).all()
    assert known_number(jnp.float32(2)) == 2
    jax.vmap(lambda x: seen.append(known_number(x)))(jnp.ones(3))
    assert np.isnan(seen[-1])


def test_a_trace_is_told_from_that_of_a_branch():
    """What was recorded within a branch is not used outside of it, and within one trace it is."""
    outer = []

    def branch(x):
        outer.append(current_trace() == outer[0])
        return x

    def step(x):
        outer.append(current_trace())
        outer.append(current_trace() == outer[0])
        return jax.lax.cond(x > 0, branch, lambda x: -x, x)

    jax.jit(step)(1.0)
    assert outer[1:] == [True, False]


def test_what_a_branch_tags_is_found_in_the_traced_program():
    """Of the jaxpr: a choice is `cond`, its branches' operands follow the index."""

    def function(leaves):
        (param,) = leaves

        def taken():
            return tagged(param * 0.5, jnp.full_like(param, 7.0), param)

        update = jax.lax.cond(param[0] > 0, taken, lambda: jnp.zeros_like(param))
        return [update * 1.0], [param + update], None

    for start, expected in ((1.0, 7.0), (-1.0, -1.0)):
        new, rest = jax.jit(lambda x: through_branches(function, [x]))(jnp.full(2, start))
        np.testing.assert_array_equal(new[0], np.full(2, expected))
        assert rest is None


def test_flax_hands_out_the_values_of_variables():
    nnx = pytest.importorskip("flax.nnx")
    pure = as_pure({"a": nnx.Param(jnp.ones(2))})
    assert isinstance(jax.tree.leaves(pure)[0], jax.Array)
    assert jax.tree.structure(pure) == jax.tree.structure({"a": 0})
