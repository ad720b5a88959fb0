"""The documents' code runs as it stands, block after block; and every public name has its page."""

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxopt_port as jp
from jaxopt_port.cli import app
from jaxopt_port.verify import recorder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(document):
    """The language of every fenced block of a document, and what stands in it."""
    return [(found[2], textwrap.dedent(found[3])) for found in FENCE.finditer(document.read_text())]


def sides(document):
    """Every block of a page with tabs, and whose it is: torch's, here, or (None) both."""
    text = document.read_text()
    for found in FENCE.finditer(text):
        tabs = re.findall(r'^=== "(\w+)"$', text[: found.start()], re.MULTILINE)
        yield tabs[-1] if found[1] else None, textwrap.dedent(found[3])


def python(name):
    return [code for language, code in blocks(DOCS / name) if language == "python"]


def run(name, codes=None, **names):
    """Run a document's blocks in one namespace, and return it."""
    names |= {"__name__": Path(name).stem}
    for code in python(name) if codes is None else codes:
        if code.startswith(">>> "):
            example = doctest.DocTestParser().get_doctest(code, names, name, name, 0)
            outcome = doctest.DocTestRunner().run(example, clear_globs=False)
            assert outcome.failed == 0
            names |= example.globs
        else:
            exec(compile(code, name, "exec"), names)
    return names


# Documents whose blocks run as they are, and what holds afterwards.
HOLDS = {
    "architecture.md": lambda n: n["state"].leaves["exp_avg"]["bias"].shape == (2,),
    "checkpoints.md": lambda n: (
        jp.state_dict(n["tx"], n["state"], n["params"])["state"][0]["step"] == 51
    ),
    "contrib.md": lambda n: n["scheduler"].get_last_lr(n["own"]) == [0.0, 0.0],
    "groups-and-selectors.md": lambda n: jp.get_hyperparams(n["state"])[0]["frozen"],
    "index.md": lambda n: n["state"].leaves["momentum_buffer"]["features"]["kernel"].any(),
    "numerics.md": lambda n: callable(n["step"]),
    "scale.md": lambda n: n["state"].leaves["exp_avg"]["kernel"].sharding.spec[0] == "data",
    "schedulers.md": lambda n: n["scheduler"].get_last_lr(n["sched_state"])[0] < 1e-4,
    "speed.md": lambda n: (
        jp.get_hyperparams(n["optimizer"].opt_state)[0]["lr"] == 1e-4
        and int(n["optimizer"].step[...]) == 5
        and int(n["state"].step) == 11
    ),
    "writing-a-rule.md": lambda n: "exp_avg" in n["lion"]().init({"w": np.ones(2)}).leaves,
}


@pytest.mark.parametrize("name", HOLDS)
def test_the_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert HOLDS[name](run(name))


def test_verification(tmp_path, monkeypatch, capsys, assert_same_training):
    monkeypatch.chdir(tmp_path)
    first, *of_pytest = python("verification.md")
    names = run("verification.md", [first])
    assert "your side applies weight decay to the parameter" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
    mended = {  # a project's own case, with the remedy
        "torch_side": lambda: names["theirs"],
        "jax_side": lambda: names["verify"].nnx_side(
            names["model"], tx=jp.Adam(lr=1e-3, weight_decay=0.1), loss=names["mine"].loss
        ),
        "batches": lambda: names["batches"][:3],
    }
    tests = run("verification.md", of_pytest, **mended)
    tests["test_port_trains_as_torch"](assert_same_training)
    recorder.record(tmp_path / "lenet", names["theirs"], names["batches"][:3])
    tests["test_port_trains_as_the_trace"](assert_same_training, lambda name: tmp_path / name)


def test_the_recorder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert CliRunner().invoke(app, ["recorder", "record.pyz"]).exit_code == 0
    run("trace-format.md")
    assert (tmp_path / "run.trace" / "trace.json").is_file()


# Of bfloat16's rounding, which differs; else of sums in another order.
TOLERANCES = {"Mixed precision": 4e-3}


def test_coming_from_torch():
    """The losses of the block on the left are those of the block on the right."""
    text = (DOCS / "coming-from-torch.md").read_text()
    sections = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    names, compared = {"__name__": "coming_from_torch"}, []
    for title, section in zip(sections[::2], sections[1::2], strict=True):
        tabs = re.findall(r'^=== "(\w+)"$', section, re.MULTILINE)
        codes = [textwrap.dedent(m[3]) for m in FENCE.finditer(section)]
        assert tabs in ([], ["torch", "here"]), title
        for code in codes:
            exec(compile(code, title, "exec"), names)
            if tabs and code is codes[0]:
                expected = names.pop("losses")
        if tabs:
            found = names["losses"]
            rtol = TOLERANCES.get(title, 2e-6)
            np.testing.assert_allclose(found, expected[-len(found) :], rtol=rtol, err_msg=title)
            compared.append(title)
    assert len(compared) == 9
    assert float(names["state"].inner_states["fast"].inner_state.hyperparams["lr"]) > 9e-3


# Documents with code that other tests run, and which.
ELSEWHERE = {
    "coming-from-torch.md": test_coming_from_torch,
    "parity.md": SimpleNamespace(__name__="test_parity_document.py: what is shown was measured"),
    "trace-format.md": test_the_recorder_alone,
    "verification.md": test_verification,
}
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "examples/ported/README.md", "benchmarks/README.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_run_or_says_what_it_is(page):
    """Code in Python is run, commands exist, and all else is marked as text."""
    found = blocks(page)
    assert page.read_text().count("```") == 2 * len(found)
    for language, code in found:
        assert language in ("python", "bash", "text"), code
        if language == "python" and page.parent == DOCS:
            assert page.name in HOLDS.keys() | ELSEWHERE.keys()
        if language == "bash":
            check_commands(code)


def check_commands(code):
    """Assert that there is every command that a block names, and every option of it."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    import typer

    commands = typer.main.get_command(app).commands
    for line in code.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, line
        elif words[:1] == ["jaxopt-port"]:
            command = commands[words[1]]
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            given = {w for w in words if w.startswith("--")}
            passed_on = command.context_settings.get("ignore_unknown_options", False)
            assert passed_on or given <= options, line
        elif words[:1] == ["python"] and words[1].startswith("examples/"):
            assert (ROOT / words[1]).is_file(), line
        else:
            known = ("python -m benchmarks", "PYTHONPATH=. python -m benchmarks", "pip install")
            assert line.startswith((*known, "python record.pyz")), line


PUBLIC = ["", "lr_scheduler", "swa_utils", "interop", "verify", "flax", "contrib"]


def public_names(package):
    module = importlib.import_module(f"jaxopt_port.{package}".rstrip("."))
    exported = getattr(module, "__all__", None) or [
        line.split(" as ")[1]
        for line in Path(module.__file__).read_text().splitlines()
        if line.strip().startswith("from .") and " as " in line and " as _" not in line
    ]
    return {name for name in exported if not inspect.ismodule(getattr(module, name, None))}


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_reference(package):
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: jaxopt_port\.([\w.]+)$", pages, re.MULTILINE))
    names = {f"{package}.{name}".lstrip(".") for name in public_names(package)}
    assert len(names) > 1
    assert not names - shown
    for name in names:
        pkgutil.resolve_name(f"jaxopt_port.{name}")


def test_the_readme():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    example, _ = [code for language, code in blocks(ROOT / "README.md") if language == "python"]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    names = run("README.md", [example])
    assert [group["lr"] for group in jp.get_hyperparams(names["state"])] == [1e-5, 1e-3]
