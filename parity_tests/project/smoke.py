"""What the bare package does, in an environment with jax and optax alone: no torch, no Flax.

``make release-check`` runs it with the wheel that it has built.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_port as jp
from jaxopt_port import contrib, interop

ABSENT = ("torch", "flax", "sklearn", "matplotlib")
PARAMS = {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}


def optimizers():
    """Every optimizer, in both spellings, takes a step that changes its parameters."""
    rows = {"weight": (jnp.arange(3), jnp.ones((3, 4)))}
    params = {"weight": PARAMS["dense"]["kernel"]}  # Muon takes matrices alone

    def loss(p):
        return jnp.mean(p["weight"] ** 2)

    for name in dir(jp):
        cls = getattr(jp, name)
        if not (isinstance(cls, type) and issubclass(cls, jp.Optimizer)) or cls is jp.Optimizer:
            continue
        for tx in (cls(), cls.factory()):
            given = {"LBFGS": loss, "SparseAdam": rows}.get(name, jax.grad(loss)(params))
            stepped, _ = jp.step(tx, given, tx.init(params), params)
            assert (stepped["weight"] != params["weight"]).all(), name


def loop():
    """Groups, a scheduler, clipping, averages and a state dict."""
    tx = optax.chain(
        jp.clip_by_grad_norm(1.0),
        jp.AdamW([{"params": "**/bias", "weight_decay": 0.0}, {"params": jp.REST}], lr=0.1),
    )
    scheduler = jp.lr_scheduler.StepLR(2, gamma=0.5)
    average = jp.swa_utils.AveragedModel()
    params, averaged = PARAMS, average.init(PARAMS)
    state, own = scheduler.init(tx.init(params))
    for _ in range(2):
        params, state = jp.step(tx, params, state, params)
        state, own = scheduler.step(state, own)
        averaged = average.update_parameters(averaged, params)
    assert [group["lr"] for group in jp.get_hyperparams(state)] == [0.05, 0.05]
    plain = jp.AdamW(lr=0.1)
    saved = jp.state_dict(plain, plain.init(params), params)
    jp.load_state_dict(plain, saved, params)
    assert contrib.Lion().init(params).leaves


def files(folder):
    """A checkpoint is written and read without torch."""
    held = {"weight": np.ones((2, 3), np.float32)}
    interop.save(folder / "run.safetensors", interop.Checkpoint(held, extra={"epoch": 3}))
    assert interop.load(folder / "run.safetensors").extra["epoch"] == 3


def package():
    """One version, types, and the command's version and help."""
    assert (Path(jp.__file__).parent / "py.typed").is_file()
    assert importlib.metadata.version("jaxopt-port") == jp.__version__
    for option in ("--version", "--help"):
        command = [sys.executable, "-m", "jaxopt_port", option]
        assert "jaxopt-port" in subprocess.check_output(command, text=True)


def main():
    """Run all, and say so."""
    for name in ABSENT:
        assert importlib.util.find_spec(name) is None, f"{name} is installed: nothing is shown"
    optimizers()
    loop()
    with tempfile.TemporaryDirectory() as folder:
        files(Path(folder))
    package()
    assert not set(ABSENT) & sys.modules.keys()
    print(f"jaxopt_port {jp.__version__} works without {', '.join(ABSENT)}")


if __name__ == "__main__":
    main()
