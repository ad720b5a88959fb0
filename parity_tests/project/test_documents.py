"""The examples in the documents run as they stand, one after the other."""

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def examples(document):
    return re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)


def test_architecture():
    assert doctest.testfile(str(DOCS / "architecture.md"), module_relative=False).failed == 0


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
