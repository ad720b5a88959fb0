"""The site's pages that are made of files of the repository, and links to those files."""

import ast
import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Add the changelog, and the examples with what stands in them."""
    examples, ported = sorted(ROOT.glob("examples/*.py")), sorted(ROOT.glob("examples/ported/*.py"))
    table = (ROOT / "examples/ported/README.md").read_text()
    pages = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "examples.md": "# Examples\n\nEach runs as it stands, and is run by a test.\n"
        + "".join(f"\n## {path.name}\n\n{_docstring(path)}\n{_source(path)}" for path in examples),
        "lenet.md": _notebook(ROOT / "examples/lenet_in_both.ipynb"),
        "gallery.md": re.sub(r"\[(\w+)\.py\]\(\w+\.py\)", r"[\1.py](#\1py)", table)
        + "".join(f"\n## {path.name}\n{_source(path)}" for path in ported),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Send links to files outside of the site to the page that shows them, or leave their words."""
    up = "../" * page.file.src_path.count("/")
    for folder, target in (("examples/ported", "gallery"), ("examples", "examples")):
        markdown = re.sub(
            rf"\]\((?:\.\./)+{folder}/(\w+)\.py\)", rf"]({up}{target}.md#\1py)", markdown
        )
    outside = r"\[`?([^\]`]+)`?\]\((?:\.\./)+(?!api|\w+\.md)[\w/]+\.(?:py|md)(?:#[\w-]*)?\)"
    return re.sub(outside, r"`\1`", markdown)


def _notebook(path):
    """Return a notebook's cells, and what came out of them, as a page."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.replace("](../docs/", "]("))
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text'])}```")
            else:
                parts.append(f"![A plot](data:image/png;base64,{output['data']['image/png']})")
    return "\n\n".join(parts)


def _docstring(path):
    return ast.get_docstring(ast.parse(path.read_text()))


def _source(path):
    code = "".join(f"    {line}\n" for line in path.read_text().splitlines())
    return f'\n??? example "{path.name}"\n\n    ```python\n{code}    ```\n'
