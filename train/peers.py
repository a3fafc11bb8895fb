"""What a user would take in place of this captioner, for `train.benchmark --peers`: captioners of transformers."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from hf_captioner.errors import ConfigError

WORDS = 12
"""Tokens that each of them writes, about as many as a caption has."""


def peers() -> dict[str, Callable[[], object]]:
    """By its name a call that writes WORDS tokens about one image in memory, greedily; with random weights, which take
    as long as any. Raises ConfigError without transformers."""
    if not find_spec("transformers"):
        raise ConfigError("--peers needs transformers, which is not installed; run: pip install transformers")
    transformers: Any = import_module("transformers")
    decoder = transformers.GPT2Config(add_cross_attention=True, is_decoder=True)
    both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(), decoder)
    both.decoder_start_token_id = both.pad_token_id = 0
    built = {
        "BLIP-base": (transformers.BlipForConditionalGeneration(transformers.BlipConfig()), 384),
        "GIT-base": (transformers.GitForCausalLM(transformers.GitConfig()), 224),
        "ViT-GPT2": (transformers.VisionEncoderDecoderModel(both), 224),
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, (model, size) in built.items():
        described = f"{name}, {_millions(model):.0f} million parameters, {size} x {size}"
        calls[described] = partial(_write, model.eval(), torch.randn(1, 3, size, size))
    return calls


def _millions(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@torch.inference_mode()
def _write(model: Any, pixels: Tensor) -> None:
    model.generate(pixel_values=pixels, max_new_tokens=WORDS, min_new_tokens=WORDS, num_beams=1, do_sample=False)
