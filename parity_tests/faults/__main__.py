"""Break the package in one fact after another: ``python -m parity_tests.faults [WORD …]``.

Each breakage stands in a copy of the checkout, of which the tests of ``make test-quick`` are run,
those of the area first, until one fails. Prints which one, and after how long; exits with 1 where
none does, or where the test that fails does so without the breakage, too. A word chooses the
breakages whose name has it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parity_tests.faults.breakages import BREAKAGES

ROOT = Path(__file__).parents[2]
# The test that a breakage's line is there would see that it is not.
QUICK = ["--budget=quick", "--ignore=parity_tests/project/test_breakages.py"]
FOLDERS = sorted(
    {str(file.parent.relative_to(ROOT)) for file in (ROOT / "parity_tests").rglob("test_*.py")}
)


def pytest(copy, *arguments):
    command = [sys.executable, "-m", "pytest", "-q", *QUICK, "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments], cwd=copy, capture_output=True, text=True, check=False
    )


def check_imports(copy, file):
    name = "jaxopt_port." + file.removesuffix(".py").replace("/", ".")
    subprocess.run([sys.executable, "-c", f"import {name}"], cwd=copy, check=True)


def failing_test(copy, areas):
    """Return the first test that fails, or None."""
    first = [f"parity_tests/{area}" for area in areas.split()]
    others = [folder for folder in FOLDERS if folder not in first]
    for how in (first, ["--numprocesses", "2", "--dist", "loadfile", *others]):
        run = pytest(copy, "-x", *how)
        found = re.search(r"^(?:FAILED|ERROR) (parity_tests/.*?)(?: - |$)", run.stdout, re.M)
        if found:
            return found[1]
        if run.returncode:
            raise RuntimeError(run.stdout[-2000:] + run.stderr[-2000:])
    return None


def copied(into):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, into / name)


def main():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="of a breakage's name")
    words = parser.parse_args().words
    chosen = [b for b in BREAKAGES if not words or any(word in b.name for word in words)]
    caught = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy.chmod(0o755)  # some tests read it as another user
        copied(copy)
        for breakage in chosen:
            file = copy / "jaxopt_port" / breakage.file
            text = file.read_text(encoding="utf-8")
            file.write_text(breakage.of(text), encoding="utf-8")
            check_imports(copy, breakage.file)  # or no fact is broken, but the code
            begun = time.monotonic()
            test = failing_test(copy, breakage.areas)
            file.write_text(text, encoding="utf-8")
            if test:
                caught[breakage.name] = test
            took = f"{time.monotonic() - begun:4.0f} s"
            print(f"{took}  {breakage.name}: {test or 'NOT CAUGHT'}", flush=True)
        whole = pytest(copy, *caught.values()) if caught else None
    if whole is not None and whole.returncode:
        print(f"tests that fail without a breakage, too:\n{whole.stdout[-4000:]}")
        return 1
    print(f"{len(caught)} of {len(chosen)} caught")
    return int(len(caught) < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
