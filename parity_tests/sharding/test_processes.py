"""The data-parallel example in real processes: two beside one, and killed at any moment."""

import shutil
import time

import jax
import numpy as np
import pytest
from flax import nnx

from jaxopt_port.models import LeNet
from parity_tests.sharding.killable_runs import Lives, started, steps_life


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def ended(lives):
    lives.start()
    lives.finish()
    return lives.params()


def far(one, other):
    """The largest distance, over the largest element of each array."""
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def two(folder):
    return ended(Lives(folder / "two", processes=2))


def test_two_processes_train_as_one(two, folder):
    (one,) = ended(Lives(folder / "one", devices=8))
    for params in two:
        assert 0 <= far(one, params) < 1e-6
    assert far(*two) == 0
    start = jax.tree.leaves(nnx.state(LeNet(rngs=nnx.Rngs(0)), nnx.Param))
    assert far(start, one) > 1e-3  # they have gone a way


def test_a_leafwise_step_in_two_processes_has_the_bits_of_one_device():
    workers, channels = started(steps_life, 2)
    for channel in channels:
        assert channel.poll(120)
        assert channel.recv() == {}  # the shards that differ, by optimizer
    for worker in workers:
        worker.join()


def test_a_killed_process_of_two_is_made_up_for_also_on_other_devices(two, folder):
    lives = Lives(folder / "two killed", processes=2)
    lives.start()
    lives.wait_for_step(7)
    lives.kill()
    assert lives.latest() in (3, 6)
    other = shutil.copytree(lives.folder, folder / "on one")
    for params, undisturbed in zip(ended(lives), two, strict=True):
        assert far(undisturbed, params) == 0
    (params,) = ended(Lives(other, processes=1, devices=2))
    assert 0 < far(two[0], params) < 1e-6


# Of how many kills, how many at least are in the middle of a write.
@pytest.mark.parametrize(("kills", "in_writes"), [(4, 1), (20, 3)])
def test_a_run_killed_again_and_again_ends_with_the_same_bits(folder, kills, in_writes):
    options = {"steps": 4 * kills, "save_every": 2, "devices": 2}
    (undisturbed,) = ended(Lives(folder / f"undisturbed by {kills}", **options))
    rng = np.random.default_rng(0)
    lives = Lives(folder / f"killed {kills}", **options)
    partial = 0
    for kill in range(kills):
        begun = lives.latest()
        lives.start()
        lives.wait_for_step(begun + int(rng.integers(1, 5)))
        if kill % 2:  # during a write
            lives.wait_for_write()
            time.sleep(rng.uniform(0, 0.01) if kill > 3 else 0)
        else:  # during a step
            time.sleep(rng.uniform(0, 0.05))
        lives.kill()
        partial += bool(lives.partial())
        assert lives.latest() >= begun
    assert partial >= in_writes
    (params,) = ended(lives)
    assert far(undisturbed, params) == 0
