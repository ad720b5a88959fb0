"""Schedules of packages that cannot be installed beside this torch, on torch's own base classes.

Written for these tests after what the packages' public sources say, and nothing of theirs:
detectron2's ``detectron2/solver/lr_scheduler.py`` (of 02b5c4e2) with fvcore's
``param_scheduler.py``, OpenNMT-py's ``onmt/utils/optimizers.py``, the Annotated Transformer's
``rate``, and fairseq's ``inverse_square_root_schedule.py``. `parity_tests.contrib.matrix` has the
real fvcore in their place.
"""

import bisect
import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

SHORT = 1e-6  # fvcore passes a boundary so much early


def optimizer_of(rates):
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def warmth(method, step, steps, factor):
    if step >= steps:
        return 1.0
    alpha = step / steps
    return {"constant": factor, "linear": factor * (1 - alpha) + alpha}[method]


class WarmupMultiStepLR(LRScheduler):
    def __init__(
        self,
        optimizer,
        milestones,
        gamma=0.1,
        warmup_factor=0.001,
        warmup_iters=1000,
        warmup_method="linear",
    ):
        self.milestones, self.gamma = milestones, gamma
        self.warmup_factor, self.warmup_iters = warmup_factor, warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer)

    def get_lr(self):
        step = self.last_epoch
        factor = warmth(self.warmup_method, step, self.warmup_iters, self.warmup_factor)
        power = self.gamma ** sum(m <= step for m in self.milestones)
        return [lr * factor * power for lr in self.base_lrs]


class WarmupCosineLR(LRScheduler):
    def __init__(
        self,
        optimizer,
        max_iters,
        warmup_factor=0.001,
        warmup_iters=1000,
        warmup_method="linear",
    ):
        self.max_iters, self.warmup_factor = max_iters, warmup_factor
        self.warmup_iters, self.warmup_method = warmup_iters, warmup_method
        super().__init__(optimizer)

    def get_lr(self):
        step = self.last_epoch
        factor = warmth(self.warmup_method, step, self.warmup_iters, self.warmup_factor)
        wave = 1.0 + math.cos(math.pi * step / self.max_iters)
        return [lr * factor * 0.5 * wave for lr in self.base_lrs]


def of_fvcore(name, **arguments):
    """The function of how far a training is, by fvcore's or detectron2's name."""
    if name == "CosineParamScheduler":
        start, end = arguments["start_value"], arguments["end_value"]
        return lambda where: end + 0.5 * (start - end) * (1 + math.cos(math.pi * where))
    if name == "MultiStepParamScheduler":
        values, total = arguments["values"], arguments["num_updates"]
        milestones = arguments["milestones"]
        return lambda where: values[bisect.bisect(milestones, int((where + SHORT) * total))]
    of, part = arguments["scheduler"], arguments["warmup_length"]
    after = of_fvcore(of[0], **of[1])
    rescaled = arguments.get("rescale_interval", False)
    start = arguments["warmup_factor"] * after(0.0)
    is_linear = arguments.get("warmup_method", "linear") == "linear"
    end = after(0.0 if rescaled else part) if is_linear else start

    def multiplier(where):
        if where + SHORT > part:
            lengths = (part, 1 - part)
            begun = sum(lengths) - lengths[1]
            return after((where - begun) / lengths[1] if rescaled else where)
        if not is_linear:
            return start
        return end * (where / part) + start * (1 - where / part)

    return multiplier


class LRMultiplier(LRScheduler):
    def __init__(self, optimizer, multiplier, max_iter):
        self.multiplier, self.max_iter = multiplier, max_iter
        super().__init__(optimizer)

    def state_dict(self):
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self):
        factor = self.multiplier(self.last_epoch / self.max_iter)
        return [lr * factor for lr in self.base_lrs]


def noam(step, model_size, warmup_steps):
    """OpenNMT's ``noam_decay``, of a step from 1 on."""
    return model_size**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)


def noam_rates(rates, steps, package, model_size, warmup_steps, factor=1.0):
    """The rates of steps from 0 on: before each step OpenNMT counts it, a LambdaLR after it."""
    if package == "opennmt":
        return [
            [factor * noam(step, model_size, warmup_steps) * lr for lr in rates]
            for step in range(1, steps + 1)
        ]

    def rate(step):
        return factor * noam(step or 1, model_size, warmup_steps)

    scheduler = LambdaLR(optimizer_of(rates), rate)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr())
        scheduler.optimizer.step()
        scheduler.step()
    return found


def inverse_square_root(steps, lr, warmup_updates=4000, warmup_init_lr=-1.0):
    """fairseq's rate after so many updates, from none on."""
    begin = max(warmup_init_lr, 0.0) if warmup_init_lr >= 0 else 0
    rise, decay = (lr - begin) / warmup_updates, lr * warmup_updates**0.5
    warming = [begin + n * rise for n in range(min(steps, warmup_updates))]
    return warming + [decay * n**-0.5 for n in range(warmup_updates, steps)]
