"""The harness: it passes where it should, and names the place where it should not."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import jaxopt_port as jp
from jaxopt_port.cli import app
from jaxopt_port.engine import transformation
from jaxopt_port.numerics import max_abs, relative, relative_norm, ulps
from jaxopt_port.verify.cases import RECIPES, load_digits, run
from parity_tests.faults.patched import FAULTS
from parity_tests.optim.test_optimizer_faults import FAULTS as FAULTS_OF_RULES

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def digits():
    return load_digits()


# ── it passes ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flax", "dtype", "recipes"),
    [
        # Those whose programs differ; `jaxopt-port verify` runs the others.
        ("nnx", "float32", ["basic", "per-layer", "dynamic-in-place"]),
        ("linen", "float64", ["every-option"]),
        ("linen", "float64", ["dynamic-rebuilt"]),
        ("linen", "bfloat16", ["every-option"]),
    ],
    ids=["nnx-float32", "linen-float64", "linen-float64, rebuilt", "linen-bfloat16"],
)
def test_recipes_hold_their_bounds(digits, flax, dtype, recipes):
    report = run(recipes, digits=digits, steps=12, flax=flax, dtype=dtype, seed=3)
    assert [result.recipe for result in report.results] == recipes
    assert report.failures == []


def test_what_a_report_says(digits):
    report = run(["per-layer", "dynamic-in-place"], digits=digits, steps=6)
    layer, dynamic = (result.columns() for result in report.results)
    (warning,) = layer["warnings"]
    assert '"classifier/3"' in warning
    assert "matched no parameter" in warning
    assert layer["change"] is None
    change = dynamic["change"]
    assert change["after_step"] == 3
    assert change["momentum_after"] == change["momentum_before"]
    assert dynamic["update_param"]["value"] == dynamic["update_buffer"]["value"] == 0
    assert dynamic["literal_differs"]["value"] == 0 < dynamic["forward"]["value"] < 16
    assert set(dynamic["by_parameter"]) == {
        f"{layer}/{kind}"
        for layer in ("features/0", "features/3", "classifier/0", "classifier/2", "classifier/4")
        for kind in ("kernel", "bias")
    }


def test_a_rebuilt_optimizer_has_lost_its_momentum_on_both_sides(digits):
    (result,) = run(["dynamic-rebuilt"], digits=digits, steps=4).results
    change = result.columns()["change"]
    before, after = change["momentum_before"], change["momentum_after"]
    assert before[0] == pytest.approx(before[1], rel=1e-6)
    assert before[0] > 0
    assert after == (0.0, 0.0)


# ── it fails ───────────────────────────────────────────────────────────────────────────────────


# test_optimizer_faults has them all, test_mutations those of whole trainings.
@pytest.mark.parametrize("fault", FAULTS[1:4:2], ids=lambda fault: fault.name)
def test_a_deliberate_fault_is_found_and_named(fault, digits, monkeypatch):
    sgd = transformation(replace(jp.sgd.rule, update=fault.update))
    monkeypatch.setattr(jp, "sgd", sgd)
    monkeypatch.setattr(jp, "SGD", type("SGD", (jp.SGD,), {"factory": staticmethod(sgd)}))
    recipe, first = run([fault.recipe], digits=digits, steps=4).failures[0]
    assert (recipe, first.stage, first.step) == (fault.recipe, "update", fault.step)
    assert first.leaf.startswith(fault.path)


def test_what_is_rounding_to_the_harness_is_a_fault_of_a_recipe(digits, monkeypatch):
    sgd = transformation(FAULTS_OF_RULES["momentum in one rounding"].rule)
    monkeypatch.setattr(jp, "SGD", type("SGD", (jp.SGD,), {"factory": staticmethod(sgd)}))
    verified = run(["dynamic-in-place"], digits=digits, steps=4)
    (result,) = verified.results
    assert result.report.ok, str(result.report)
    assert {found.stage for found in result.failures} == {"update", "literal"}
    assert result.failures[0].step == 1
    assert not verified.to_json()["passed"]
    assert "ulp" in result.columns()["failures"][0]["message"]


def test_the_command_names_the_culprit_and_exits_1(monkeypatch):
    fault = FAULTS[0]
    sgd = transformation(replace(jp.sgd.rule, update=fault.update))
    monkeypatch.setattr(jp, "SGD", type("SGD", (jp.SGD,), {"factory": staticmethod(sgd)}))
    monkeypatch.setattr(jp, "sgd", sgd)
    result = RUNNER.invoke(app, ["verify", "--recipe", fault.recipe, "--steps", "2"])
    assert result.exit_code == 1
    assert "FAILED" in result.output
    assert f"{fault.recipe}: update, step {fault.step}, {fault.path}" in result.output


# ── the command line ───────────────────────────────────────────────────────────────────────────


def test_the_command_writes_what_it_measured(tmp_path):
    file = tmp_path / "report.json"
    result = RUNNER.invoke(
        app, ["verify", "--recipe", "basic", "--steps", "2", "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.output
    report = json.loads(file.read_text())
    assert report["schema"] == 1
    assert report["passed"] is True
    assert report["results"][0]["recipe"] == "basic"
    assert report["results"][0]["update_param"]["value"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


BAD_USAGE = {
    "unknown recipe": (["--recipe", "basics"], "there is no recipe 'basics'"),
    "too few steps": (["--steps", "1"], "--steps"),
    "negative seed": (["--seed", "-1"], "--seed"),
    "unknown flax": (["--flax", "haiku"], "'nnx', 'linen'"),
    "unknown dtype": (["--dtype", "int8"], "float32"),
    "no such folder": (["--json", "/no/such/folder/report.json"], "does not exist"),
    "a folder for a file": (["--json", "/tmp"], "is a folder"),
    "unknown option": (["--step", "3"], "--step"),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage_exits_2_and_says_why(case):
    arguments, message = BAD_USAGE[case]
    result = RUNNER.invoke(app, ["verify", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--help"], "verify"),
        (["verify", "--help"], "Exit code 0"),
        (["--version"], jp.__version__),
    ],
)
def test_help(arguments, text):
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0
    assert text in result.output


def test_help_knows_every_recipe():
    unbroken = "".join(RUNNER.invoke(app, ["verify", "--help"]).output.split())
    assert [name for name in RECIPES if name not in unbroken] == []


# ── distances ──────────────────────────────────────────────────────────────────────────────────

F32_TINY = np.finfo(np.float32).smallest_normal
FAR = np.iinfo(np.int64).max
ULPS = {
    "equal": (1.0, 1.0, 0),
    "neighbours": (1.0, np.nextafter(np.float32(1), np.float32(2)), 1),
    "across a power of two": (np.nextafter(np.float32(2), np.float32(0)), 2.0, 1),
    "zeros of either sign": (0.0, -0.0, 0),
    "a subnormal is zero": (1e-40, 0.0, 0),
    "the smallest normal": (F32_TINY, 0.0, 1),
    "across zero": (F32_TINY, -F32_TINY, 2),
    "both nan": (np.nan, np.nan, 0),
    "one nan": (np.nan, 1.0, FAR),
    "infinity and the largest": (np.inf, np.finfo(np.float32).max, 1),
}


@pytest.mark.parametrize("case", ULPS)
def test_ulps(case):
    a, b, expected = ULPS[case]
    a, b = np.float32([a, 1.0]), np.float32([b, 1.0])
    assert ulps(a, b) == ulps(b, a) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_ulps_in_each_dtype(dtype):
    with jax.enable_x64(True):
        one = np.asarray(jax.numpy.ones((), dtype))
        more = np.asarray(one + jax.numpy.finfo(dtype).eps.astype(one.dtype))
    assert ulps(one, more) == 1
    assert ulps(one, one) == 0


def test_ulps_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match=r"float32\[2\] with float64\[2\]"):
        ulps(np.zeros(2, np.float32), np.zeros(2))


def test_other_distances():
    a, b = np.array([1.0, 2.0]), np.array([1.0, 4.0])
    assert max_abs(a, b) == 2.0
    assert relative(a, b) == 0.5
    assert relative_norm([a], [b]) == pytest.approx(2 / np.sqrt(17))
    assert max_abs(np.array([np.inf]), np.array([np.inf])) == 0.0
    assert max_abs(np.array([np.nan]), np.array([1.0])) == np.inf
    assert relative(np.array([1.0]), np.array([0.0])) == np.inf
    assert max_abs(np.array([]), np.array([])) == 0.0
