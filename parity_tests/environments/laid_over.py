"""torch's Python files of one version over the installed torch of another.

torch's builds for Linux may need CUDA's libraries, which are gigabytes. Its optimizers, schedulers,
averages, clipping and scaler are Python, though, and every build of a version has the same: that
for macOS, which needs nothing else, gives them to the torch that is here. What runs then is that
version's Python, which calls the installed version's kernels.
"""

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

FOLDER = "torch/optim/"
FILES = (
    "torch/amp/grad_scaler.py",
    "torch/nn/utils/clip_grad.py",
    "torch/testing/_internal/common_optimizers.py",  # optim_db
)
# Without an interpreter of that system, pip asks for its own version's.
SMALL = ["--platform", "macosx_14_0_arm64", "--platform", "macosx_11_0_arm64"]
IMPORTED = (
    "import torch.amp.grad_scaler, torch.testing._internal.common_optimizers as c; c.optim_db"
)


def lay_over(run: Callable, python: Path, version: str) -> str:
    """Change the torch of an environment, and return what was done.

    ``torch.__version__`` is the version laid over then, with that beneath it as its local part.

    Args:
        run: runs a command and returns its outcome.
        python: the environment's interpreter.
        version: of torch, whose wheel pip fetches and compares with the index's hash.

    Raises:
        RuntimeError: there is no such wheel, or a file in it needs more than what is here.
    """
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").stdout[:-1]
    )
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", *SMALL, "--dest", folder]
        done = run(python, "-m", "pip", "download", *options, f"torch=={version}")
        if done.returncode:
            raise RuntimeError(f"pip: {done.stderr.strip()[-300:]}")
        (wheel,) = Path(folder).glob("torch-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith((FOLDER, *FILES))]
            shutil.rmtree(site / FOLDER)
            archive.extractall(site, names)
    own = site / "torch" / "version.py"
    beneath = re.compile(r"^__version__ = '(.*)'$", re.MULTILINE)
    (installed,) = beneath.findall(own.read_text(encoding="utf-8"))
    label = f"{version}+optim.over.{installed.replace('+', '.')}"
    own.write_text(beneath.sub(f"__version__ = '{label}'", own.read_text(encoding="utf-8")))
    done = run(python, "-c", IMPORTED)
    if done.returncode:
        raise RuntimeError(f"torch {label}: {done.stderr.strip().splitlines()[-1]}")
    return (
        f"of {wheel.name}: {len(names) - len(FILES)} files of {FOLDER}, {', '.join(FILES)}; "
        f"all else is torch {installed}'s, all that is compiled with it"
    )
