"""`jaxopt-port show`, the options of `convert` for names, and code that builds what there is."""

import ast
import re
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from typer.testing import CliRunner

import jaxopt_port as jp
from jaxopt_port import contrib, interop
from jaxopt_port.cli import app
from jaxopt_port.cli._show import code
from parity_tests.interop.whole_runs import Run, lightnings, torchvisions, trainers

FACTORIES = """
import numpy as np, torch

def make_torch():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))

def make_jax():
    shapes = {"first": (3, 4), "last": (4, 2)}
    return {k: {"kernel": np.zeros(s, np.float32), "bias": np.zeros(s[1], np.float32)}
            for k, s in shapes.items()}
"""


class Settings:
    """An object of the user's own."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(FACTORIES)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


SHOWN = {
    trainers: ["Hugging Face's Trainer", "weight_decay", "last_epoch 5", "0.weight",
               "run.optimizer, params, mapped", "StepLR(step_size=4, gamma=0.5)",
               "scheduler.load_state_dict(run.scheduler"],
    lightnings: ["a checkpoint of Lightning", "model.0.weight"],
    torchvisions: ["averages", "model_ema", "scale 8.0", "args"],
}  # fmt: skip


@pytest.mark.parametrize("write", SHOWN, ids=lambda write: write.__name__)
def test_a_run_says_what_it_is(run, tmp_path, write):
    shown = run("show", str(write(Run(), tmp_path)))
    assert shown.exit_code == 0, shown.output
    for words in SHOWN[write]:
        assert words in shown.output


def _scheduler(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    return make(torch.optim.lr_scheduler, optimizer)


@pytest.mark.parametrize(
    "make",
    [
        lambda of, o: of.StepLR(o, 3),
        lambda of, o: of.MultiStepLR(o, [5, 3, 3], gamma=0.2),
        lambda of, o: of.ExponentialLR(o, 0.9),
        lambda of, o: of.CosineAnnealingLR(o, 7, eta_min=1e-3),
        lambda of, o: of.CosineAnnealingWarmRestarts(o, 4, T_mult=2),
        lambda of, o: of.LinearLR(o),
        lambda of, o: of.ConstantLR(o, 0.5, 3),
        lambda of, o: of.PolynomialLR(o, 3, power=2.0),
    ],
)
def test_a_schedulers_state_tells_its_class_and_numbers(make):
    theirs = _scheduler(make)
    likely = interop.likely_scheduler(theirs.state_dict())
    made = eval(f"jp.lr_scheduler.{likely}")
    assert repr(made) == repr(interop.scheduler_from_torch(theirs)[0])


@pytest.mark.parametrize(
    ("make", "likely"),
    [
        (lambda of, o: of.LambdaLR(o, lambda epoch: 1.0), "LambdaLR(…)"),
        (lambda of, o: of.OneCycleLR(o, 0.1, 10), "OneCycleLR(…)"),
        (lambda of, o: of.ReduceLROnPlateau(o), "ReduceLROnPlateau(…)"),
        (lambda of, o: of.CyclicLR(o, 0.1, 0.2), "CyclicLR(…)"),
        (lambda of, o: of.SequentialLR(o, [of.StepLR(o, 3)] * 2, [2]), "SequentialLR(…)"),
    ],
)
def test_a_class_whose_numbers_are_not_kept(make, likely):
    assert interop.likely_scheduler(_scheduler(make).state_dict()) == likely


def test_what_is_no_number_is_no_code():
    state = {"step_size": "__import__('os')", "gamma": 0.1, "last_epoch": 1}
    assert interop.likely_scheduler(state) is None
    assert interop.likely_scheduler({"gamma": float("inf")}) is None
    assert interop.likely_scheduler({"other": 1}) is None


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"warmup_steps": 3, "warmup_ratio": 0.5}, "get_scheduler('cosine', 3, 21)"),
        ({"warmup_steps": 0, "warmup_ratio": 0.1}, "get_scheduler('cosine', 3, 21)"),
        ({"warmup_steps": 0.1}, "get_scheduler('cosine', 3, 21)"),
        ({"warmup_steps": 0}, "get_scheduler('cosine', 0, 21)"),
        ({}, "lr_scheduler.LambdaLR(…)"),
    ],
)
def test_a_trainers_schedule_has_its_numbers(args, line):
    extra = {"training_args": {"lr_scheduler_type": "cosine", **args}}
    run = interop.Checkpoint(
        {}, scheduler={"lr_lambdas": [{}]}, extra=extra | {"trainer_state": {"max_steps": 21}}
    )
    made = [each for each in code("checkpoint-5", run) if each.startswith("scheduler = ")]
    assert len(made) == 1
    assert line in made[0]


def test_names_with_control_sequences_are_shown_harmlessly(run):
    torch.save({"a\x1b[2J[bold]": torch.ones(2)}, "a")
    shown = run("show", "a")
    assert "\x1b" not in shown.output
    assert "\\x1b[2J[bold]" in shown.output


def test_markup_and_code_in_a_file_are_text(run):
    model, optimizer = torch.nn.Linear(2, 2), {"state": {}, "param_groups": [{"params": [0, 1]}]}
    torch.save({"model": model.state_dict(), "[/b]": 1, 'x"); boom("': optimizer}, "a")
    shown = run("show", "a")
    assert shown.exit_code == 0, shown.output
    assert "[/b]" in shown.output
    lines = shown.output.partition("To go on in JAX:\n")[2]
    names = [node.id for node in ast.walk(ast.parse(textwrap.dedent(lines))) if hasattr(node, "id")]
    assert "boom" not in names


def test_the_code_of_two_optimizers_steps_each(run):
    net = torch.nn.Linear(2, 2)
    states = [torch.optim.SGD(net.parameters()).state_dict() for _ in range(2)]
    torch.save({"model": net.state_dict(), "optimizer_g": states[0], "optimizer_d": states[1]}, "a")
    lines = run("show", "a").output.partition("To go on in JAX:\n")[2]
    tree = ast.parse(textwrap.dedent(lines))
    stored = {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert used - stored == {"interop", "jp", "module", "model", "grads"}
    assert {"state_0", "state_1"} <= stored


def test_what_cannot_be_read_is_said(run):
    refused = run("show", "none")
    assert (refused.exit_code, "there is no file none" in refused.output) == (2, True)
    with open("a", "wb") as file:
        file.write(b"hello")
    assert run("show", "a").exit_code == 2


def test_convert_renames_lays_out_and_allows(run):
    model = Run().module.state_dict()
    torch.save({"model": model, "settings": Settings()}, "run.tar")
    both = ("--torch", "model.py:make_torch", "--jax", "model.py:make_jax")
    refused = run("convert", "run.tar", "a.safetensors", *both)
    assert "give a rename rule" in refused.output
    done = run(
        "convert", "run.tar", "a.safetensors", *both, "--rename", r"^0\.=first.",
        "--rename", r"^2\.=last.", "--layout", "2.weight=1,0",
        "--allow", f"{__name__}.Settings",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "left out: settings is Settings" in done.output
    found = interop.load("a.safetensors")
    np.testing.assert_array_equal(found.params["last/kernel"], model["2.weight"].numpy().T)
    for option, value in (("--rename", "x"), ("--layout", "x"), ("--allow", "no.such")):
        assert run("convert", "run.tar", "b.safetensors", option, value).exit_code == 2


# ── code ───────────────────────────────────────────────────────────────────────────────────────

PARAMS = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "b": jnp.ones(2)}
BUILT = {
    "one group": jp.AdamW(betas=(0.8, 0.9), weight_decay=0.3),
    "groups": jp.SGD(
        [{"params": "a", "lr": 0.5, "name": "x"}, {"params": jp.REST}], momentum=0.9, nesterov=True
    ),
    "a frozen group": jp.RMSprop([{"params": "a/bias"}, {"params": jp.REST, "frozen": True}]),
    "two optimizers": jp.Muon(
        [
            {"params": "a/kernel"},
            {"params": jp.REST, "optimizer": jp.AdamW, "lr": 1e-3, "lr_scale": 2.0},
        ],
        lr=0.02,
    ),
    "two optimizers of one rate": jp.Muon(
        [{"params": "a/kernel"}, {"params": jp.REST, "optimizer": jp.AdamW, "lr": 0.02}], lr=0.02
    ),
    "Optax's own": jp.param_groups(
        optax.adamw,
        [{"params": "**/bias", "weight_decay": 0.0}, {"params": jp.REST}],
        learning_rate=3e-4,
    ),
    "what it takes for no number": jp.param_groups(
        optax.adamw, learning_rate=1e-3, b1=0.8, nesterov=True, static_args=["b1", "eps"]
    ),
    "words and numbers of other kinds": jp.SGD(
        [{"params": re.compile("A/KERNEL", re.IGNORECASE), "name": "a\nb"}, {"params": jp.REST}],
        lr=np.float32(0.5), momentum=jnp.float32(0.25),
    ),
    "all that is told apart by words": jp.Adafactor(eps=(None, 1e-4), d=2.0, maximize=True),
}  # fmt: skip


def run_code(text):
    made = {}
    exec(text, made)
    return made


@pytest.mark.parametrize("tx", BUILT.values(), ids=BUILT)
def test_spelled_code_builds_the_same(tx):
    want = tx.init(PARAMS)
    assert jp.spelled(tx, want) == jp.spelled(tx)
    made = run_code(jp.spelled(tx))["tx"]
    assert repr(made) == repr(tx)
    assert made.definition.arguments.static == tx.definition.arguments.static
    got = made.init(PARAMS)
    assert jp.get_hyperparams(got) == jp.get_hyperparams(want)
    assert jax.tree.structure(got) == jax.tree.structure(want)


def test_numbers_of_now():
    tx = jp.SGD(lr=0.5)
    state = jp.set_hyperparams(tx.init(PARAMS), lr=0.25)
    assert "lr=0.25" in jp.spelled(tx, state)


RATE = {"learning_rate": 1e-3}
NO_SPELLING = {
    "a predicate": jp.SGD(lambda path, leaf: True),
    "a schedule": jp.SGD(lr=lambda count: 0.1),
    "a mask": jp.param_groups(
        optax.adamw, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree), **RATE
    ),
    "a type": jp.param_groups(optax.adamw, mu_dtype=jnp.bfloat16, **RATE),
    "a dtype": jp.param_groups(optax.adamw, mu_dtype=np.dtype("float16"), **RATE),
}


@pytest.mark.parametrize("tx", NO_SPELLING.values(), ids=NO_SPELLING)
def test_functions_have_no_spelling(tx):
    with pytest.raises(ValueError, match="has no spelling"):
        jp.spelled(tx)
    with pytest.raises(ValueError, match="has no spelling"):
        jp.spelled(tx, tx.init(PARAMS))


S = torch.optim.lr_scheduler
SCHEDULERS = {
    "StepLR": lambda o: S.StepLR(o, 3, 0.5),
    "OneCycleLR": lambda o: S.OneCycleLR(o, [1.0, 2.0], total_steps=30, pct_start=0.4),
    "plateau": lambda o: S.ReduceLROnPlateau(o, patience=3, min_lr=[0.1, 0.2]),
    "sequence": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.1, total_iters=5), S.CosineAnnealingLR(o, 20)], [5]
    ),
    "none": lambda o: None,
}  # fmt: skip


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_spelled_code_of_torchs_builds_the_same(make):
    module = Run(0).module
    groups = [{"params": module[0].parameters(), "lr": 0.01}, {"params": [module[2].weight]}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    scheduler = make(optimizer)
    like = {
        "0": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
        "2": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)},
    }
    made = run_code(interop.spelled(optimizer, scheduler, params=like, module=module))
    params = interop.params_from_torch(module, like)
    _, want = interop.optimizer_from_torch(optimizer, params, module)
    got = made["tx"].init(params)
    if scheduler is not None:
        theirs, _ = interop.scheduler_from_torch(scheduler, want)
        assert made["scheduler"] == theirs
        got, _ = made["scheduler"].init(got)
    with warnings.catch_warnings():
        assert [g.get("lr") for g in jp.get_hyperparams(got)] == [
            g.get("lr") for g in jp.get_hyperparams(want)
        ]


def test_functions_of_several_schedulers_have_names_of_their_own():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=1.0)
    by_epoch = S.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    both = S.ChainedScheduler([by_epoch, S.MultiplicativeLR(optimizer, lambda epoch: 0.9)])
    code = interop.spelled(optimizer, both)
    assert "LambdaLR(lr_lambda=lr_lambda)" in code
    assert "MultiplicativeLR(lr_lambda=lr_lambda_2)" in code


@pytest.mark.parametrize("given", [None, jp.SGD(lr=0.1), torch.nn.Linear(1, 1)])
def test_what_is_no_optimizer_of_torchs_is_not_spelled(given):
    with pytest.raises(TypeError, match="expected a torch optimizer"):
        interop.spelled(given)


@pytest.mark.parametrize("around", [contrib.lookahead, contrib.sam], ids=lambda f: f.__name__)
def test_what_stands_around_an_optimizer_is_named_in_its_place(around):
    with pytest.raises(
        TypeError, match=rf"got what {around.__name__} makes: give it the optimizer"
    ):
        jp.spelled(around(jp.SGD(lr=0.1)))
    with pytest.raises(TypeError, match=r"with groups; got GradientTransformationExtraArgs$"):
        jp.spelled(jp.sgd(0.1))


def test_a_state_of_another_optimizer_is_not_spelled():
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    with pytest.raises(ValueError, match="another optimizer's than tx"):
        jp.spelled(jp.SGD(lr=0.1), jp.Adam([{"params": "a"}, {"params": "b"}]).init(params))
