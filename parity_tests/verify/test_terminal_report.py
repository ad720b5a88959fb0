"""The report in a terminal: what it says, within 80 columns."""

import io

import pytest
from rich.console import Console

from jaxopt_port.verify.report import StageResult
from jaxopt_port.verify.report._terminal import render
from jaxopt_port.verify.report._wording import exact, number, shortened, worst_leaf
from parity_tests.verify.made_reports import HOSTILE, REPORTS, SAME, leaf, report, stages


def shown(report, width=80):
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, legacy_windows=False).print(render(report))
    return file.getvalue()


def row(text, title, stage):
    """Return the cells of a stage's line in the table of that title."""
    table = text.split(title)[1]
    return next(line.split() for line in table.splitlines() if line.split()[:1] == [stage])


LINES = {
    "passed": [
        "PASSED  mlp: the same training",
        "AdamW · float32 · 30 steps compared · 4.2 s",
        "• Outputs and gradients were compared at 3 of 30 steps.",
    ],
    "differs": [
        "DIFFERS  text-classifier: at step 12, update of encoder/layers/1/mlp/kernel",
        "Likely cause  Your Adam adds eps=1e-8 inside the square root; torch adds it after.",
        "To mend it    Use jp.AdamW(eps=1e-8), or optax.adamw(eps_root=0.0).",
        "Unexplained   0.002 of it",
        "No rounding   In float64 the two are 4.1e-06 apart as well.",
        "In torch      encoder.layers.1.mlp.weight",
        "[0, 0]  0.031 0.031004",
    ],
    "not_finite": ["Likely cause  none found", "[0, 1]     0.1    NaN", "[2]         -∞ 1e-300"],
    "many": ["PASSED  large: the same training"],
    "hostile": ["[bold]as it is[/bold]", "In torch      " + HOSTILE[:40]],
    "empty": ["PASSED  nothing: the same training"],
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_key_lines_stand_within_80_columns(name):
    text = shown(REPORTS[name]())
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for line in LINES[name]:
        assert " ".join(line.split()) in flat


def test_the_verdict_comes_first_and_the_tables_hold_the_worst_leaf():
    text = shown(REPORTS["differs"]())
    assert text.startswith("DIFFERS")
    assert row(text, "What was compared", "update") == [
        *("update", "differs", "12", "120"), "encoder/layers/1/mlp/kernel",
    ]  # fmt: skip
    assert row(text, "What was compared", "loss")[1] == "same"
    worst = worst_leaf(REPORTS["differs"]().stages["update"]).worst
    assert row(text, "How far apart", "update")[1] == number(worst.ulps_max)
    assert row(shown(REPORTS["many"]()), "How far apart", "update")[1] == "1.23e+05"
    assert row(shown(REPORTS["not_finite"]()), "How far apart", "gradient")[1:4] == [
        *("∞", "∞", "NaN"),
    ]  # fmt: skip


def test_long_paths_are_cut_in_the_middle_and_skipped_stages_are_named_with_why():
    path = "/".join(["block"] * 30) + "/kernel"
    long = report(stages=stages(update=StageResult("update", [leaf(path, {0: 1.0})], 1)))
    text = shown(long)
    assert path not in text
    assert "…" in text
    assert "/kernel" in text
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "Not compared: parameters, data, forward, loss, gradient" in flat
    assert "trajectory: the side has none" in flat


def test_what_differs_is_shown_before_what_is_further_apart_but_within_rounding():
    within = leaf("far", {0: 900.0})
    beyond = leaf("near", {0: 2.0}, ok=False)
    assert worst_leaf(StageResult("update", [within, beyond], 1)) is beyond
    assert worst_leaf(StageResult("update", [within, leaf("x", {0: 1.0}, worst=SAME)])) is within
    assert worst_leaf(StageResult("update")) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (float.fromhex("0x1.99999ap-4"), "0.1"),  # 0.1 in float32
        (1 / 3, "0.3333333333333333"),
        (float("nan"), "NaN"),
        (float("-inf"), "-∞"),
        (1e300, "1e+300"),
    ],
)
def test_a_number_is_given_so_that_it_can_be_typed_back(value, text):
    assert exact(value) == text


@pytest.mark.parametrize(
    ("width", "text"), [(9, "abcdefghi"), (8, "abc…fghi"), (2, "…i"), (1, "…"), (0, "")]
)
def test_a_shortened_text_keeps_both_ends(width, text):
    assert shortened("abcdefghi", width) == text
