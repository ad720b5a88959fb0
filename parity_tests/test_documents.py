"""The examples in the documents run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.slow
def test_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "checkpoints.md").read_text()
    names = {"__name__": "checkpoints"}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, "checkpoints.md", "exec"), names)
    assert "layers/0/kernel" in capsys.readouterr().out
    step = names["jp"].state_dict(names["tx"], names["state"], names["params"])["state"][0]["step"]
    assert step == 51
