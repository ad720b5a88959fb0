"""The README's way from a Trainer's folder to the next step runs as it stands."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import torch

import jaxopt_port as jp
from parity_tests.interop.going_on import like_of, trained
from parity_tests.interop.real_libraries import gpt2

README = Path(__file__).parents[2] / "README.md"


class TrainingArguments:
    """As transformers has it, which needs accelerate to make one."""

    def __init__(self):
        self.optim = "adamw_torch"


def test_from_a_trainers_folder_to_the_next_step(tmp_path, monkeypatch):
    """In at most 8 lines; the folder is as Trainer writes it (`make matrix` has Trainer's own)."""
    block = re.search(r"```python\n(from transformers.*?)```", README.read_text(), re.DOTALL)[1]
    assert len([line for line in block.splitlines() if line.strip()]) <= 8
    module, folder = gpt2(), tmp_path / "checkpoint-500"
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 100)
    trained(module, optimizer, after=scheduler.step)
    module.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    torch.save(TrainingArguments(), folder / "training_args.bin")
    (folder / "trainer_state.json").write_text('{"global_step": 500}')
    monkeypatch.chdir(tmp_path)
    model = like_of(module)
    grads = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), model)
    ours = jp.lr_scheduler.LambdaLR(lambda step: (step + 1) / 100)
    names = {"jp": jp, "model": model, "grads": grads, "scheduler": ours}
    exec(compile(block, "README.md", "exec"), names)
    for p in module.parameters():
        p.grad = torch.full_like(p, 0.1)
    optimizer.step()
    got = names["params"]["transformer"]["h"]["1"]["attn"]["c_attn"]["kernel"]
    want = module.transformer.h[1].attn.c_attn.weight.detach().numpy()
    assert abs(got - want).max() <= 1e-7 * abs(want).max()
    assert names["run"].step == 500
    assert ours.get_last_lr(names["sched_state"]) == scheduler.get_last_lr()
    assert [g["lr"] for g in jp.get_hyperparams(names["state"])] == scheduler.get_last_lr()
