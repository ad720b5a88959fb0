"""Write the documents' code into a folder for pyright, a file for each document.

``make release-check`` runs pyright on them, strictly. Rules about types that are unknown are off:
JAX, Optax, Flax and torch are typed in part (``jnp.ones`` is "partially unknown"); that this
package's own are all known, ``mypy --strict`` says.
"""

import doctest
import json
import sys
from pathlib import Path

from parity_tests.project.test_documents import DOCS, ROOT, blocks, sides

KINDS = ("Member", "Argument", "Variable", "Parameter", "Lambda")
OFF = [
    *(f"reportUnknown{kind}Type" for kind in KINDS),
    *("reportMissingParameterType", "reportMissingTypeStubs", "reportDuplicateImport"),
    *("reportUnusedExpression", "reportUnusedImport"),
]
# What stands around the blocks of a page.
BEFORE = {
    "README": "from typing import Any\nmodel: Any = None\ngrads: Any = None\n"
    "scheduler: Any = None\n",
    "coming-from-torch": "from typing import Any\nstopped: Any = None\n"
    "stopped_optimizer: Any = None\nfirst_images: Any = None\nimages: Any = None\n",
    "verification": "from collections.abc import Callable\nfrom typing import Any\n"
    "torch_side: Callable[[], Any]\njax_side: Callable[[], Any]\nbatches: Any\n",
}


def written(folder):
    """Write the files and pyright's settings."""
    for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]:
        name = page.stem
        codes = [code for language, code in blocks(page) if language == "python"]
        if name == "coming-from-torch":
            codes = [code for side, code in sides(page) if side != "torch"]
        if name == "parity" or not codes:  # Optax's code, in parts
            continue
        parser = doctest.DocTestParser()
        plain = [
            "".join(e.source for e in parser.get_examples(code)) if code.startswith(">>>") else code
            for code in codes
        ]
        file = folder / f"{name.replace('-', '_')}_page.py"
        text = BEFORE.get(name, "") + "\n".join(plain)
        file.write_text(
            text.replace("from recorder import", "from jaxopt_port.verify.recorder import")
        )
    settings = {
        "typeCheckingMode": "strict",
        "include": ["."],
        "extraPaths": [str(ROOT)],
        **dict.fromkeys(OFF, False),
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    written(place)
