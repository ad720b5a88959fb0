"""Files of results, their comparison and the README's table; the suites on their smallest case."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks._commands import app
from benchmarks.speed import _figures, _tables
from benchmarks.speed._contender import Case, Contender
from benchmarks.speed._data import arrays
from benchmarks.speed._results import FOLDER, Measurement, Results, ResultsError, load
from benchmarks.speed._run import Run, _distance
from benchmarks.speed._shapes import MODELS, elements, shapes_of
from benchmarks.speed._suites import LOOPS, TIMED, bytes_moved
from benchmarks.speed._targets import targets

COMMITTED, OF_GPU = FOLDER / "cpu.json", FOLDER / "h200.json"


def measured(**medians):
    """Results with a time for each contender of one case, in milliseconds."""
    sides = {"jax": {"platform": "cpu"}, "torch": {}}
    results = Results("2026-01-01", "", {"processor": "p", "threads": 2}, sides)
    for name, ms in medians.items():
        times = (ms / 1e3, ms * 0.98 / 1e3, ms * 1.02 / 1e3)
        results.measurements.append(
            Measurement("step", "Adam, GPT-2 small", name.replace("_", " "), "s", *times)
        )
    return results


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("LeNet", 62_006),
        ("ResNet-50", 25_557_032),
        ("BERT-base", 109_482_240),
        ("ViT-B/16", 86_567_656),
        ("GPT-2 small", 124_439_808),
    ],
)
def test_models_have_their_parameters(model, count):
    assert elements(shapes_of(model)) == count


def test_the_large_model_has_about_a_billion():
    assert 0.9e9 < elements(MODELS["Llama-like 1 B"]()) < 1.3e9


def test_adam_moves_28_bytes_a_parameter_and_sgd_20():
    assert bytes_moved("LeNet", "Adam") == 28 * 62_006
    assert bytes_moved("LeNet", "SGD") == 20 * 62_006


def test_no_gradient_is_zero():
    assert all(np.all(x != 0) for x in arrays("300 small leaves", "Adam", seed=1))


def test_muon_is_given_matrices():
    assert {x.ndim for x in arrays("LeNet", "Muon", seed=0)} == {2}


@pytest.mark.parametrize("suite", TIMED)
def test_cases_have_names_of_their_own(suite):
    for quick in (False, True):
        names = [case.name for case in TIMED[suite](quick)]
        assert len(set(names)) == len(names)


def test_sets_of_buffers_take_turns():
    called = []
    contender = Contender([lambda: called.append(1), lambda: called.append(2)])
    contender.time(3)
    contender.time(1)
    assert called == [1, 2, 1, 2]


def test_a_distance_is_a_part_of_the_way():
    start, theirs = np.zeros(4), np.full(4, 2.0)
    assert _distance(np.full(4, 2.2), theirs, start) == pytest.approx(0.1)
    assert _distance(theirs, theirs, start) == 0
    assert _distance(None, theirs, start) is None


def test_results_survive_their_file(tmp_path):
    results = measured(jp_step=3.0, torch_fused=4.0)
    results.save(tmp_path / "new" / "r.json")
    assert load(tmp_path / "new" / "r.json") == results
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a file of results"),
        ("[]", "is not a file of results"),
        ('{"schema": 99}', "has schema 99, and this version reads 1: measure anew"),
        ('{"schema": 1, "measurements": [{"suite": "step"}]}', "is not a file of results"),
    ],
)
def test_other_files_are_refused(text, said, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ResultsError, match=said):
        load(tmp_path / "r.json")
    told = CliRunner().invoke(app, ["report", str(tmp_path / "r.json")])
    assert told.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ({"jp.step": 10}, {"jp.step": 13}, 1, "slower"),
        ({"jp.step": 10}, {"jp.step": 10.5}, 0, "0 slower beyond noise"),
        ({"jp.step": 10}, {"jp.step": 7}, 0, "faster"),
        ({"torch fused": 10}, {"torch fused": 20}, 0, "slower"),
        ({"jp.step": 10}, {"optax": 10}, 2, "no measurement in common"),
    ],
)
def test_a_regression_is_flagged(old, new, code, said, tmp_path):
    for name, medians in (("old", old), ("new", new)):
        measured(**medians).save(tmp_path / name)
    told = CliRunner().invoke(app, ["compare", str(tmp_path / "old"), str(tmp_path / "new")])
    assert (told.exit_code, said in told.output) == (code, True), told.output


def test_a_change_within_the_quartiles_is_none():
    old, new = measured(jp_step=10.0), measured(jp_step=13.0)
    (wide,) = new.measurements
    new.measurements[:] = [dataclasses.replace(wide, low=0.009)]
    (change,) = _tables.changes(old, new)
    assert not change.beyond_noise


def test_targets_are_met_or_not():
    (fused, optax) = targets(measured(**{"jp.step": 10.0, "torch fused": 9.0, "optax": 14.0}))
    assert (round(fused.ratio, 2), fused.met) == (1.11, False)
    assert fused.what.endswith("jp.step / torch fused")
    assert optax.ratio == pytest.approx(10 / 14)
    at_limit = measured(**{"jp.step": 10.0, "torch fused": 9.8})
    at_limit.measurements[:] = [dataclasses.replace(m, limit=9.6e-3) for m in at_limit.measurements]
    (fused, limit) = targets(at_limit)
    assert (round(fused.ratio, 2), fused.verdict) == (1.02, "met: the bandwidth's limit")
    assert (round(limit.ratio, 2), limit.verdict) == (1.04, "met")


def test_the_committed_results_are_those_of_the_documents():
    for path, text in _tables.with_tables(load(COMMITTED), load(OF_GPU)).items():
        assert text == path.read_text()


def test_the_committed_results_are_whole():
    results = load(COMMITTED)
    known = {*TIMED, "bandwidth", "compile", "memory", "import"}
    assert {m.suite for m in results.measurements} == known
    ours = [m for m in results.measurements if m.contender in ("jp.step", "tx.update")]
    checked = [m for m in ours if m.suite == "step"]
    assert checked
    assert all(m.differs is not None and m.differs < 1e-2 for m in checked)


def test_results_are_drawn(tmp_path):
    page = _figures.page(load(COMMITTED))
    assert page.count("plotly-graph-div") >= 5
    assert "http" not in page.split("<script", 1)[0]
    _figures.png(load(COMMITTED), tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 20_000


def test_a_case_is_measured_in_both_frameworks(tmp_path, monkeypatch):
    case = Case(
        "step",
        "Adam, 10 small leaves",
        {"model": "10 small leaves", "optimizer": "Adam", "copies": 1},
        {"torch": ("torch fused",), "jax": ("jp.step", "optax")},
    )
    monkeypatch.setitem(TIMED, "step", lambda quick: [case])
    results = Run(["step"], quick=True, threads=1, command="", say=lambda text: None).measure()
    found = {m.contender: m for m in results.measurements if m.suite == "step"}
    assert set(found) == {"torch fused", "jp.step", "optax"}
    assert found["jp.step"].differs < 1e-6
    assert found["optax"].differs < 1e-3
    assert all(m.limit > 0 and m.median > 0 for m in found.values())
    results.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["sides"]["jax"]["platform"] == "cpu"


def test_flaxs_loops_are_measured(monkeypatch):
    settings = {"model": "10 small leaves", "optimizer": "AdamW", "copies": 1}
    forms = [f"{form}, {whose}" for form in LOOPS for whose in ("jp", "optax")]
    contenders = {"torch": ("torch fused",), "jax": ("jp.step", *forms, "empty nnx.jit, jp")}
    case = Case("loops", "AdamW, 10 small leaves", settings, contenders)
    monkeypatch.setitem(TIMED, "loops", lambda quick: [case])
    results = Run(["loops"], quick=True, threads=1, command="", say=lambda text: None).measure()
    found = {m.contender: m for m in results.measurements if m.suite == "loops"}
    assert set(found) == {*contenders["torch"], *contenders["jax"]}
    for name, m in found.items():
        assert m.median > 0
        assert name.startswith("empty") or m.differs < (1e-6 if name.endswith("jp") else 1e-3)


def test_the_command_itself_starts(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "accelerator" in capsys.readouterr().out
