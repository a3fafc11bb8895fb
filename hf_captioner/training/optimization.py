"""The optimizer of a stage, its learning rate schedule, and the moving average of the weights."""

import math
from collections.abc import Callable, Sequence
from itertools import compress

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.training.recipe import Stage
from hf_captioner.training.vocabulary import WORD_TENSORS

Weights = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(
    captioner: ImageCaptioner, stage: Stage, weight_decay: float, new_words: int = 0
) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; biases and other vectors are not decayed. `peak` is a group's peak rate.

    new_words: how many words at the vocabulary's end learn at the stage's `new_words_learning_rate`.
    """
    groups = []
    for module, peak in (
        (captioner.decoder, stage.learning_rate),
        (captioner.encoder, stage.encoder_learning_rate),
    ):
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decayed in (True, False):
            chosen = [parameter for parameter in parameters if (parameter.dim() > 1) == decayed]
            if chosen:
                decay = weight_decay if decayed else 0.0
                groups.append({"params": chosen, "peak": peak, "lr": peak, "weight_decay": decay})
    # Sampled rewards are noisy: a longer memory of the gradients' scale keeps self-critical steps small.
    beta2 = 0.98 if stage.objective == "cross_entropy" else 0.999
    optimizer = torch.optim.AdamW(groups, betas=(0.9, beta2), fused=True)
    if new_words and stage.new_words_learning_rate is not None:
        decoder = captioner.decoder.named_parameters()
        tensors = [parameter.detach() for name, parameter in decoder if name in WORD_TENSORS]
        ratio = stage.new_words_learning_rate / stage.learning_rate
        _hasten(optimizer, [tensor[-new_words:] for tensor in tensors], ratio)
        _shorten(optimizer, [(tensor[:-new_words], tensor[-new_words:]) for tensor in tensors if tensor.dim() == 2])
    return optimizer


def _hasten(optimizer: torch.optim.Optimizer, rows: Sequence[Tensor], ratio: float) -> None:
    """Multiply what each step changes in these parts of its parameters. An AdamW step is linear in its learning rate,
    so that this is that rate times `ratio`, for parts that cannot have a group of their own."""
    before: list[Tensor] = []

    def keep(*_: object) -> None:
        before[:] = [part.clone() for part in rows]

    def stretch(*_: object) -> None:
        for part, was in zip(rows, before, strict=True):
            part.copy_(was + ratio * (part - was))

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(stretch)


def _shorten(optimizer: torch.optim.Optimizer, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
    """After each step, shorten the new words' rows that are longer than the known words' are on average.

    A longer row gives larger logits, so that new words were said of everything (weight aligning of Zhao et al. 2020,
    Maintaining Discrimination and Fairness in Class Incremental Learning, here as a limit at every step).
    """

    def limit(*_: object) -> None:
        for known, new in parts:
            new.mul_((known.norm(dim=1).mean() / new.norm(dim=1, keepdim=True)).clamp(max=1))

    optimizer.register_step_post_hook(limit)


def set_learning_rate(optimizer: torch.optim.Optimizer, stage: Stage, done: int, steps: int) -> None:
    """Set the rates for the step after `done` of the stage's `steps`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * _ratio(stage, done, steps)


def _ratio(stage: Stage, done: int, steps: int) -> float:
    """Fraction of the peak rate: linear warm-up, then a cosine down to `final_lr_ratio`."""
    if done < stage.warmup:
        return (done + 1) / stage.warmup
    through = (done - stage.warmup) / max(1, steps - stage.warmup)
    return stage.final_lr_ratio + (1 - stage.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * through))


def build_average(captioner: ImageCaptioner, decay: float) -> AveragedModel:
    """A moving average of the captioner's trainable parameters; the others stay as they are."""
    trained = [parameter.requires_grad for parameter in captioner.parameters()]
    return AveragedModel(captioner, multi_avg_fn=_moving_average(decay, trained))


def _moving_average(decay: float, trained: Sequence[bool]) -> Callable[[Weights, Weights, Tensor | int], None]:
    """An exponential moving average with decay min(decay, (1 + n) / (10 + n)) after n updates, the schedule of
    TensorFlow's ExponentialMovingAverage, so that the initial weights are soon forgotten."""

    @torch.no_grad()
    def update(average: Weights, current: Weights, updates: Tensor | int) -> None:
        n = int(updates)
        means, values = (list(compress(weights, trained)) for weights in (average, current))
        torch._foreach_lerp_(means, values, 1 - min(decay, (1 + n) / (10 + n)))

    return update
