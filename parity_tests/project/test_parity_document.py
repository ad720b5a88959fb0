"""docs/parity.md covers torch's table and shows the code that was measured."""

import inspect
import re
from importlib.metadata import version

import jax
import numpy as np
import pytest

from benchmarks._torch_table import configurations, defaults
from benchmarks.parity._document import DOCUMENT, document, label, reason, sources
from benchmarks.parity._measure import (
    CLOSEST,
    PORT,
    Measurement,
    Row,
    after_all,
    after_one,
    measure,
)
from benchmarks.parity._optax_differences import SPELLINGS
from benchmarks.parity._optax_spellings import lbfgs_iteration
from benchmarks.parity._workloads import Objective, workload

OPTIMIZERS = list(dict.fromkeys(c.optimizer for c in configurations()))
TORCH = version("torch").partition("+")[0]


@pytest.fixture(scope="module")
def sections():
    """The document's sections by heading."""
    parts = re.split(r"^## (.*)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def of(optimizer):
    return [c for c in configurations() if c.optimizer == optimizer]


def rows_of(section):
    """The first cells of the table of configurations."""
    table = section.partition("| configuration |")[2]
    return [line.split(" | ")[0][2:] for line in table.splitlines()[2:] if line.startswith("| ")]


def test_torchs_table():
    if TORCH.startswith("2.13."):
        assert (len(OPTIMIZERS), len(configurations())) == (15, 91)
    assert set(SPELLINGS) <= set(OPTIMIZERS)


def test_the_document_has_every_configuration(sections):
    missing = {
        f"{c.optimizer}({c})"
        for c in configurations()
        if rows_of(sections.get(c.optimizer, "")).count(label(c)) != 2
    }
    if f"torch {TORCH}" not in sections[""] and missing:
        pytest.skip(f"written with another torch; torch {TORCH} has {', '.join(sorted(missing))}")
    assert not missing
    assert set(sections) == {"", *OPTIMIZERS}


@pytest.mark.parametrize("optimizer", SPELLINGS)
def test_the_document_shows_the_table_of_spellings(optimizer, sections):
    section = sections[optimizer]
    assert f"```python\n{sources(optimizer)}\n```" in section
    assert reason(optimizer) in section
    spelling = SPELLINGS[optimizer]
    if spelling.by_name is not None:
        assert f"`{spelling.expression(defaults(optimizer)['lr'])}`" in section
        assert all(text in section for text in spelling.differing_defaults())


@pytest.mark.parametrize("optimizer", SPELLINGS)
def test_spellings_have_torchs_defaults(optimizer):
    torchs = defaults(optimizer)
    # torch resolves it to a number; here that is done where it is used.
    torchs |= {"max_eval": None} if "max_eval" in torchs else {}
    for name, parameter in inspect.signature(SPELLINGS[optimizer].closest).parameters.items():
        assert parameter.default == torchs[name], name


def assert_steps(tx, work):
    """The transformation takes a step that leaves shapes and dtypes as they are."""

    def step(grads, state, params):
        if isinstance(work, Objective):
            return lbfgs_iteration(tx, grads, state, params)
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(jax.numpy.add, params, updates), state

    params = jax.tree.map(jax.numpy.asarray, work.start)
    state = tx.init(params)
    after = jax.eval_shape(step, work.for_optax(0), state, params)
    assert jax.tree.map(np.shape, (params, state)) == jax.tree.map(np.shape, after)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_spelling_steps_or_says_why_not(optimizer):
    spelling = SPELLINGS[optimizer]
    assert spelling.why
    work = workload(optimizer, 2, np.float32)
    for configuration in of(optimizer):
        assert_steps(spelling.closest(**configuration.numbers), work)
    if spelling.by_name is not None:
        assert_steps(spelling.named(defaults(optimizer)["lr"]), work)


def test_what_is_new_in_torch_is_reported():
    """An option that only torch has, and an optimizer that only torch has."""
    measurement = Measurement(of("SGD")[0], 2, np.float32)
    option = measurement.configuration._replace(options={"beta3": 0.5})
    optimizer = option._replace(optimizer="Lion")
    rows = []
    for measurement.configuration in (option, optimizer):
        cells = {PORT: measurement.of_port(), CLOSEST: measurement.of_closest()}
        rows.append(Row(measurement.configuration, 2, cells))
    text = document(rows)
    for section in (text.partition("## SGD")[2], text.partition("## Lion")[2]):
        assert "- `beta3=0.5`, this library: not here" in section
        assert "- `beta3=0.5`, closest Optax: not expressible" in section


def test_distances():
    theirs, start = np.float32([1.0, -4.0]), np.float32([1.0, 2.0])
    ours = np.nextafter(theirs, np.float32(9))
    one, many = after_one(ours, theirs, start), after_all(ours, theirs, start)
    # The change of the second is 6, whose unit is that of 4; the magnitude is 4 either way.
    assert one.units == 1.0
    assert many == (0.5, 2.0**-22 / 4)


def test_the_measurement():
    rows = measure(["SGD"], quick=True)
    assert len(rows) == len(of("SGD"))
    for row in rows:
        assert row.cells[PORT].one == row.cells[PORT].all == (0.0, 0.0)
        assert row.cells[PORT].by_parameter.keys() == {"scalar", "matrix", "kernel", "wide"}
    (momentum,) = [row for row in rows if str(row.configuration) == "momentum=0.9"]
    assert 0 < momentum.cells[CLOSEST].all.relative < 1e-6
