"""Packages use each other through what they export, downward, and in no circle."""

import ast
import importlib
import multiprocessing
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import pytest

import jaxopt_port
import jaxopt_port as jp

ROOT = Path(jaxopt_port.__file__).parent
# Each may import from those before it.
LAYERS = [
    *(
        "_printable",
        "_untraceable",
        "_compat",
        "numerics",
        "trees",
        "kernels",
        "engine",
        "optim",
        "sharding",
        "models",
    ),
    *(
        "lr_scheduler",
        "clip_grad",
        "accumulation",
        "amp",
        "swa_utils",
        "checkpoint",
        "contrib",
        "_spelled",
        "interop",
        "flax",
    ),
    *("verify", "_explain", "cli", "_pytest_plugin", "__main__"),
]


def imports(path, everywhere=True):
    """The modules that a module imports from, as tuples of names; of its top level alone, too."""
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            absolute = [alias.name.split(".") for alias in node.names]
            yield from (tuple(rest) for first, *rest in absolute if first == ROOT.name)
        if not isinstance(node, ast.ImportFrom):
            continue
        own = node.module.split(".") if node.module else []
        if not node.level and own[0] != ROOT.name:
            continue
        base = package[: len(package) - node.level + 1] if node.level else ()
        target = (*base, *(own if node.level else own[1:]))
        for alias in node.names:
            inner = ROOT.joinpath(*target, alias.name)
            is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
            yield (*target, alias.name) if is_module else target


MODULES = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from ..engine import Rule", ("engine",)),
        ("from ..engine._rule import Rule", ("engine", "_rule")),
        ("from ..engine import _rule", ("engine", "_rule")),
        ("from jaxopt_port.engine._rule import Rule", ("engine", "_rule")),
        ("from jaxopt_port.engine import _rule", ("engine", "_rule")),
        ("import jaxopt_port.engine._rule", ("engine", "_rule")),
        ("import jaxopt_port as jp", ()),
        ("import numpy.engine", None),
        ("from numpy.engine import _rule", None),
    ],
)
def test_all_ways_of_importing_are_seen(line, expected, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: line)
    found = list(imports(ROOT / "optim" / "_sgd.py"))
    assert found == ([] if expected is None else [expected])


def test_private_modules_are_their_packages_own():
    odd = []
    for path, module in MODULES.items():
        for target in imports(path) if module != ("__init__",) else ():
            private = [i for i, name in enumerate(target) if name.startswith("_")]
            first = next((i for i in private if target[i] != "_compat"), None)
            if first and module[:first] != target[:first]:
                odd.append(f"{'/'.join(module)} imports {'.'.join(target)}")
    assert not odd


def test_no_function_has_the_name_of_a_package_beside_it():
    packages = [path.parent for path in ROOT.rglob("__init__.py") if path.parent != ROOT]
    for package in packages:
        parent = ".".join(("jaxopt_port", *package.relative_to(ROOT).parent.parts))
        found = getattr(importlib.import_module(parent), package.name, None)
        assert found is None or isinstance(found, ModuleType), package


def test_imports_run_downward():
    odd = []
    for path, module in MODULES.items():
        if module == ("__init__",):
            continue
        odd += [
            f"{'/'.join(module)} imports {'.'.join(target)}"
            for target in imports(path)
            if target and LAYERS.index(target[0]) > LAYERS.index(module[0])
        ]
    assert not odd


def test_no_module_imports_itself_by_way_of_others():
    edges = defaultdict(set)
    for path, module in MODULES.items():
        own = module[:-1] if module[-1] == "__init__" else module
        edges[own] |= {target for target in imports(path, everywhere=False) if target != own}
    done, way = set(), []

    def visit(module):
        assert module not in way, " → ".join(".".join(m) for m in [*way, module])
        if module in done:
            return
        way.append(module)
        for target in sorted(edges[module]):
            visit(target)
        way.pop()
        done.add(module)

    for module in sorted(edges):
        visit(module)


def way_of_a_step():
    """Return own calls, files and frames deep: two groups, built, initialised and stepped."""
    params = {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(7)}
    others = jp.SGD(lr=0.1, momentum=0.9)  # what is imported at the first step of all is no call
    jp.step(others, params, others.init(params), params)
    adamw, rest, step = jp.AdamW, jp.REST, jp.step  # names are loaded as they are asked for
    calls, files, depths = [], set(), []

    def own(frame):
        return frame.f_code.co_filename.startswith(str(ROOT))

    def profile(frame, event, _):
        if event != "call" or not own(frame):
            return
        calls.append(frame.f_code.co_name)
        files.add(frame.f_code.co_filename)
        depth = 0
        while frame is not None:
            depth += own(frame)
            frame = frame.f_back
        depths.append(depth)

    sys.setprofile(profile)
    try:
        tx = adamw([{"params": "kernel", "lr": 0.1}, {"params": rest}])
        step(tx, params, tx.init(params), params)
    finally:
        sys.setprofile(None)
    return len(calls), len(files), max(depths)


def test_a_step_takes_a_short_way(monkeypatch):
    """In plain XLA, and a process of its own: what others have loaded or kept makes another way."""
    monkeypatch.setenv("JAXOPT_PORT_KERNELS", "off")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        calls, files, depth = process.submit(way_of_a_step).result()
    assert calls <= 427
    assert files <= 24
    assert depth <= 10
