"""Runs that the libraries themselves saved, loaded here and gone on with: ``make matrix``.

Prints a row for each layout: the library that wrote it, and how far 20 steps from it are from
torch's own going on with the same gradients. Exits with 1 where a bound is broken: equal bits, and
for AdamW, whose square root in torch's build is MKL's, two units in the last place of the largest
number of a tensor for each step.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import jaxopt_port as jp
from jaxopt_port import contrib, interop
from parity_tests.interop.going_on import Distance, distance, trained
from parity_tests.oracles.tolerances import GONE_ON

STEPS = 20


class Saved(NamedTuple):
    """What a library has saved, beside torch's objects that go on.

    Attributes:
        path: the file or folder.
        module: whose parameters they are.
        optimizer: torch's own, not wrapped.
        schedulers: torch's, and this side's.
        optimizer_name: where the layout does not say it.
        key: of the optimizer, where there are several.
        live: whether parameters and names come from torch's objects; see `going_on.distance`.
    """

    path: Path
    module: Any
    optimizer: Any
    schedulers: tuple[Any, Any] | None = None
    optimizer_name: str | None = None
    key: str | None = None
    live: bool = False


def small() -> torch.nn.Module:
    """Two layers and a normalisation."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
    )


# ── transformers and peft ──────────────────────────────────────────────────────────────────────


def gpt2() -> Any:
    """A small one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=2, n_head=2))


class _Texts(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(i, i + 8) % 32
        return {"input_ids": ids, "labels": ids}


def _trainer(folder: Path, model: Any = None, given: Any = (None, None), **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(folder), use_cpu=True, max_steps=40, save_steps=10, per_device_train_batch_size=4,
        weight_decay=0.1, warmup_steps=4, report_to=[], disable_tqdm=True, logging_steps=1000,
        **options,
    )  # fmt: skip
    trainer = Trainer(
        gpt2() if model is None else model, arguments, train_dataset=_Texts(), optimizers=given
    )
    # It stops when the first checkpoint is whole, as a run that was cut off.
    from transformers import TrainerCallback

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_training_stop = True
            return control

    trainer.add_callback(Stop())
    trainer.train()
    return trainer


def _of_trainer(trainer: Any, folder: Path, ours: Any, **more: Any) -> Saved:
    optimizer = trainer.optimizer.optimizer  # Accelerate's wrapper
    scheduler = trainer.lr_scheduler
    scheduler = getattr(scheduler, "scheduler", scheduler)
    return Saved(folder / "checkpoint-10", trainer.model, optimizer, (scheduler, ours), **more)


def trainer(folder: Path) -> Saved:
    """Trainer, as it comes: AdamW in two groups, a linear schedule with warm-up."""
    ours = contrib.get_linear_schedule_with_warmup(4, 40)
    return _of_trainer(_trainer(folder), folder, ours)


def trainers_own_optimizer(folder: Path) -> Saved:
    """Trainer with an optimizer and a schedule that it is given."""
    model = gpt2()
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    made = _trainer(folder, model, (optimizer, scheduler))
    return _of_trainer(made, folder, jp.lr_scheduler.StepLR(4, 0.5), optimizer_name="Adamax")


def trainers_shards(folder: Path) -> Saved:
    """Trainer, whose model is then saved in shards."""
    made = _trainer(folder)
    (folder / "checkpoint-10" / "model.safetensors").unlink()
    made.model.save_pretrained(folder / "checkpoint-10", max_shard_size="4KB")
    return _of_trainer(made, folder, contrib.get_linear_schedule_with_warmup(4, 40))


def trainers_adafactor(folder: Path) -> Saved:
    """Trainer with optim="adafactor": transformers' own class."""
    made = _trainer(folder, optim="adafactor", lr_scheduler_type="cosine")
    ours = contrib.get_cosine_schedule_with_warmup(4, 40)
    return _of_trainer(made, folder, ours, optimizer_name="transformers.Adafactor")


def lora(folder: Path) -> Saved:
    """Trainer with PEFT's LoRA: the folder has an adapter, and the optimizer its matrices alone."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.0)
    made = _trainer(folder, get_peft_model(gpt2(), config))
    return _of_trainer(made, folder, contrib.get_linear_schedule_with_warmup(4, 40), live=True)


# ── accelerate ─────────────────────────────────────────────────────────────────────────────────


def _accelerate(folder: Path, **options: Any) -> Saved:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    module = small()
    optimizer = torch.optim.Adamax(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    wrapped, own, sched = accelerator.prepare(module, optimizer, scheduler)
    trained(wrapped, own, after=sched.step)
    accelerator.save_state(str(folder / "state"), **options)
    pair = (sched.scheduler, jp.lr_scheduler.StepLR(3, 0.5))
    return Saved(folder / "state", module, own.optimizer, pair, "Adamax")


def accelerate(folder: Path) -> Saved:
    """Accelerator.save_state."""
    return _accelerate(folder)


def accelerates_pickles(folder: Path) -> Saved:
    """The same with safe_serialization=False."""
    return _accelerate(folder, safe_serialization=False)


# ── lightning ──────────────────────────────────────────────────────────────────────────────────


def _lightning(folder: Path, module: Any, **options: Any) -> Any:
    import lightning

    lightning.seed_everything(0, verbose=False)
    loader = torch.utils.data.DataLoader(torch.randn(32, 3), batch_size=4)
    made = lightning.Trainer(
        accelerator="cpu", max_steps=8, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    made.fit(module, loader)
    made.save_checkpoint(folder / "run.ckpt")
    return made


def _lightning_module(optimizers: int = 1, wrap: Callable[[Any], Any] = lambda m: m) -> Any:
    import lightning

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = wrap(small())
            self.automatic_optimization = optimizers == 1

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.net(batch).square().mean()
            if optimizers > 1:
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
                    optimizer.zero_grad()
            return loss

        def configure_optimizers(self) -> Any:
            if optimizers > 1:
                net = self.net
                own = [[*net[0].parameters()], [*net[1].parameters(), *net[3].parameters()]]
                return [torch.optim.Adamax(params, lr=0.05) for params in own]
            made = torch.optim.Adamax(self.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.StepLR(made, 3, 0.5)
            return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return Net()


def lightning(folder: Path) -> Saved:
    """A .ckpt with one optimizer and a schedule; all names begin with "net."."""
    module = _lightning_module()
    made = _lightning(folder, module)
    scheduler = made.lr_scheduler_configs[0].scheduler
    pair = (scheduler, jp.lr_scheduler.StepLR(3, 0.5))
    return Saved(folder / "run.ckpt", module, made.optimizers[0], pair, "Adamax")


def lightnings_averages(folder: Path) -> Saved:
    """The same with the callback EMAWeightAveraging, which saves averages as the model's state."""
    from lightning.pytorch.callbacks import EMAWeightAveraging

    module = _lightning_module()
    made = _lightning(folder, module, callbacks=[EMAWeightAveraging(decay=0.9)])
    scheduler = made.lr_scheduler_configs[0].scheduler
    pair = (scheduler, jp.lr_scheduler.StepLR(3, 0.5))
    return Saved(folder / "run.ckpt", module, made.optimizers[0], pair, "Adamax")


def lightnings_two_optimizers(folder: Path) -> Saved:
    """A .ckpt with two optimizers, of which the second goes on."""
    module = _lightning_module(2)
    made = _lightning(folder, module)
    for p in module.net[0].parameters():
        p.requires_grad_(False)
    path = folder / "run.ckpt"
    return Saved(path, module, made.optimizers[1], None, "Adamax", "optimizer_states.1")


def lightning_compiled(folder: Path) -> Saved:
    """A .ckpt whose network is within torch.compile: "net._orig_mod." in all names."""
    module = _lightning_module(wrap=lambda m: torch.compile(m, backend="eager"))
    made = _lightning(folder, module)
    scheduler = made.lr_scheduler_configs[0].scheduler
    pair = (scheduler, jp.lr_scheduler.StepLR(3, 0.5))
    return Saved(folder / "run.ckpt", module, made.optimizers[0], pair, "Adamax")


# ── timm and torchvision ───────────────────────────────────────────────────────────────────────


def timm(folder: Path) -> Saved:
    """timm's CheckpointSaver: layer decay, an average, settings."""
    import timm
    from timm.optim import create_optimizer_v2
    from timm.utils import CheckpointSaver, ModelEmaV3

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3)
    optimizer = create_optimizer_v2(model, "adamax", lr=0.05, weight_decay=0.1, layer_decay=0.7)
    average = ModelEmaV3(model)
    trained(model, optimizer, after=lambda: average.update(model))
    (folder / "out").mkdir()
    saver = CheckpointSaver(
        model, optimizer, model_ema=average, checkpoint_dir=str(folder / "out"),
        recovery_dir=str(folder / "out"),
    )  # fmt: skip
    saver.save_checkpoint(3, metric=71.5)
    return Saved(folder / "out" / "last.pth.tar", model, optimizer, None, "Adamax", live=True)


def torchvision(folder: Path) -> Saved:
    """the dict of torchvision's references, of its SqueezeNet: warm-up, cosine, settings."""
    import argparse

    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=3)
    rest = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], [3])
    trained(model, optimizer, after=scheduler.step)
    held = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 5,
        "lr_scheduler": scheduler.state_dict(), "args": argparse.Namespace(lr=0.1, opt="sgd"),
    }  # fmt: skip
    torch.save(held, folder / "checkpoint.pth")
    ls = jp.lr_scheduler
    ours = ls.SequentialLR([ls.LinearLR(0.01, total_iters=3), ls.CosineAnnealingLR(30)], [3])
    return Saved(folder / "checkpoint.pth", model, optimizer, (scheduler, ours), "SGD")


LAYOUTS: dict[str, tuple[Callable[[Path], Saved], ...]] = {
    "transformers": (trainer, trainers_own_optimizer, trainers_shards, trainers_adafactor),
    "peft": (lora,),
    "accelerate": (accelerate, accelerates_pickles),
    "lightning": (lightning, lightnings_averages, lightnings_two_optimizers, lightning_compiled),
    "timm": (timm,),
    "torchvision": (torchvision,),
}


def compared(make: Callable[[Path], Saved]) -> tuple[Distance, Saved]:
    """Return what both goings on are apart, of a layout that a library makes anew."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            saved = make(Path(folder))
        found = interop.load(saved.path)
        apart = distance(
            found, saved.module, saved.optimizer, schedulers=saved.schedulers, key=saved.key,
            optimizer_name=saved.optimizer_name, steps=STEPS, live=saved.live,
        )  # fmt: skip
    return apart, saved


def main(names: list[str]) -> int:
    """Print the table; return 1 where a bound is broken."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # PyPI's torchvision, which timm and others import, is built for another torch; nothing here
    # needs its kernels, whose operators it describes as it is imported.
    vision = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        vision.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
    logging.disable(logging.WARNING)
    print(f"| library | layout | {STEPS} steps on | rates |\n|---|---|---|---|")
    broken = 0
    for library, layouts in LAYOUTS.items():
        version = importlib.metadata.version(library)
        for make in layouts:
            if names and make.__name__ not in names:
                continue
            apart, saved = compared(make)
            exact = type(saved.optimizer).__name__ in ("Adamax", "SGD")
            good = apart.rates and (apart.bits if exact else apart.relative <= GONE_ON)
            broken += not good
            shown = "equal bits" if apart.bits else f"{apart.relative:.1e} relative"
            rates = "equal bits" if apart.rates else "**differ**"
            layout = str(make.__doc__).partition("\n")[0].rstrip(".")
            end = "" if good else " **beyond its bound**"
            print(f"| {library} {version} | {layout} | {shown}{end} | {rates} |", flush=True)
    return min(broken, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
