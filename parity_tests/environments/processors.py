"""The tests as XLA and MKL would compile and choose for another processor: ``make processors``.

LLVM writes for the processor that it finds: two with the same instructions are given other code,
whose contractions could be others. So the tests run in an environment whose jaxlib takes the
processor for the one that is named, and whose torch takes it for Intel's, on which MKL has other
products of matrices. The instructions remain those of the processor that is here.

The words are LLVM's names of processors (``skylake-avx512``); after ``--``, what pytest is given in
place of the tests of ``make test``. Exits with 1 where a test fails.
"""

import mmap
import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-matrix" / "processors"
# AVX-512 with and without a preference for narrower vectors, and the newest that LLVM tunes for.
NAMES = ["skylake-avx512", "icelake-server", "sapphirerapids"]
TESTS = ["parity_tests", "--budget=test"]
XLA = ("jaxlib/libjax_common.so", "_ZN4llvm3sys14getHostCPUNameEv")
MKL = ("torch/lib/libtorch_cpu.so", "mkl_serv_intel_cpu_true")
SYMBOL = np.dtype([("name", "<u4"), ("rest", "<u4"), ("value", "<u8"), ("size", "<u8")])


def offset_of(library: mmap.mmap, symbol: str) -> int:
    """Return where in an ELF file a function begins.

    Raises:
        RuntimeError: there is none of this name.
    """
    (start,) = struct.unpack_from("<Q", library, 40)
    entry, count = struct.unpack_from("<HH", library, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, start + entry * i) for i in range(count)]
    for _, kind, _, _, at, size, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names, length = sections[link][4:6]
        found = library.find(f"\0{symbol}\0".encode(), names, names + length)
        symbols = np.frombuffer(library, SYMBOL, size // SYMBOL.itemsize, at)
        for value in symbols["value"][symbols["name"] == found + 1 - names]:
            for _, _, _, address, begins, held, *_ in sections:
                if address and address <= value < address + held:
                    return int(value - address + begins)
    raise RuntimeError(f"no function {symbol}")


def patch(library: Path, symbol: str, code: bytes) -> None:
    """Write machine code over the beginning of a function."""
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        file.seek(offset_of(held, symbol))
        file.write(code)


def returning_text(text: str) -> bytes:
    """The code that returns a ``StringRef``: its address in rax, its length in rdx."""
    return b"".join([
        *(b"\x48\x8d\x05", struct.pack("<i", 6)),  # lea rax, [rip + 6]
        *(b"\xba", struct.pack("<i", len(text)), b"\xc3"),  # mov edx, length; ret
        text.encode(),
    ])  # fmt: skip


RETURNING_ONE = b"\xb8\1\0\0\0\xc3"  # mov eax, 1; ret


def environment(name: str) -> Path:
    """Make an environment of this one's packages, for another processor; return its Python."""
    folder, here = FOLDER / name, Path(sysconfig.get_path("platlib"))
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    changed = {file.partition("/")[0] for file, _ in (XLA, MKL)}
    for entry in os.listdir(here):
        if entry in changed:
            shutil.copytree(here / entry, site / entry, copy_function=os.link)
        else:
            (site / entry).symlink_to(here / entry)
    for (file, symbol), code in ((XLA, returning_text(name)), (MKL, RETURNING_ONE)):
        (site / file).unlink()
        shutil.copy2(here / file, site / file)
        patch(site / file, symbol, code)
    return folder / "bin" / "python"


# The processor's name stands in each program that XLA compiles.
SEEN = """
import hashlib, sys, jax, torch
program = jax.jit(lambda x: x + 1).lower(1.0).compile().runtime_executable()
assert sys.argv[1].encode() in program.serialize(), "XLA does not compile for " + sys.argv[1]
a, b = torch.randn(2, 700, 700, generator=torch.Generator().manual_seed(0))
print(hashlib.md5((a @ b).numpy().tobytes()).hexdigest())
"""


def products(python: Path | str, name: str) -> str:
    """Return a digest of torch's product of two matrices; raises where XLA compiles as it did."""
    done = subprocess.run([python, "-c", SEEN, name], capture_output=True, text=True)
    if "not a recognized processor" in done.stderr:
        raise SystemExit(f"LLVM knows no processor {name}; some that it does: {', '.join(NAMES)}")
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-1500:])
    return done.stdout


def main(words: list[str]) -> int:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        print("nothing run: the libraries are changed as those of Linux on x86-64 are")
        return 1
    names, _, given = " ".join(words).partition("--")
    failed = []
    for name in names.split() or NAMES:
        python = environment(name)
        same = products(python, name) == products(sys.executable, "")
        mkl = "the bits that it has here" if same else "other bits than here"
        print(f"{name}: XLA compiles for it; MKL's products of matrices have {mkl}", flush=True)
        pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2"]
        done = subprocess.run(
            [*pytest, "--dist", "loadfile", *(given.split() or TESTS)], cwd=ROOT, check=False
        )
        failed += [name] if done.returncode else []
    print("all passed" if not failed else f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
