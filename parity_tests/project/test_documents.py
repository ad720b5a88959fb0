"""The examples in the documents run as they stand, one after the other."""

import doctest
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import jaxopt_port as jp

DOCS = Path(__file__).parents[2] / "docs"


def examples(document):
    return re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", ["architecture.md", "groups-and-selectors.md"])
def test_sessions(document):
    assert doctest.testfile(str(DOCS / document), module_relative=False).failed == 0


def test_contrib(capsys):
    for example in examples("contrib.md"):
        exec(compile(example, "contrib.md", "exec"), {"__name__": "contrib"})
    assert capsys.readouterr().out == "[0.0, 0.0]\n"


@pytest.mark.slow
def test_verification(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, *of_pytest = examples("verification.md")
    exec(compile(first, "verification.md", "exec"), {"__name__": "verification"})
    assert "your side applies weight decay to the parameter" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
    for example in of_pytest:  # of a project with a case: test_case_commands runs their like
        compile(example, "verification.md", "exec")


@pytest.mark.slow
def test_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "checkpoints"}
    for example in examples("checkpoints.md"):
        exec(compile(example, "checkpoints.md", "exec"), names)
    assert "layers/0/kernel" in capsys.readouterr().out
    step = names["jp"].state_dict(names["tx"], names["state"], names["params"])["state"][0]["step"]
    assert step == 51


def sides(document):
    """What both sides share, and the pairs of blocks, without their indentation."""
    text = (DOCS / document).read_text()
    shared = re.search(r"^```python\n(.*?)```", text, re.DOTALL | re.MULTILINE).group(1)
    tabs = re.findall(r'=== "(\w+)"\n\n    ```python\n(.*?)    ```', text, re.DOTALL)
    blocks = [textwrap.dedent(block) for _, block in tabs]
    assert [name for name, _ in tabs] == ["torch", "here"] * (len(tabs) // 2)
    return shared, list(zip(blocks[::2], blocks[1::2], strict=True))


@pytest.mark.slow
def test_coming_from_torch():
    shared, pairs = sides("coming-from-torch.md")
    names = {"__name__": "coming_from_torch"}
    exec(shared, names)
    assert len(pairs) == 5
    for theirs, ours in pairs:
        exec(theirs, names)
        expected = names.pop("losses")
        exec(ours, names)
        found = names["losses"]
        np.testing.assert_allclose(found, expected[-len(found) :], rtol=2e-6)


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


@pytest.mark.slow
def test_speed():
    names = {"__name__": "speed"}
    for example in examples("speed.md"):
        exec(compile(example, "speed.md", "exec"), names)
    assert jp.get_hyperparams(names["optimizer"].opt_state)[0]["lr"] == 1e-4
    assert int(names["optimizer"].step[...]) == 5
    assert int(names["state"].step) == 11
