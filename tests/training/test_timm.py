"""Training with an encoder of timm's."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("only_training", "no_java")


def test_an_encoder_of_timm_is_trained_saved_and_loaded_as_any_other(blocks: Path, tmp_path: Path) -> None:
    """From weights in timm's names, with the preprocessing that they were made for."""
    torch.manual_seed(0)
    backbone = timm.create_model("test_efficientnet").eval()
    save_file({name: value.half() for name, value in backbone.state_dict().items()}, tmp_path / "timm.safetensors")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
model: {encoder: "timm:test_efficientnet", hidden_size: 16, backward_hidden_size: 8}
generation: {num_beams: 2, max_length: 8}
min_count: 1
batch_size: 8
mixed_precision: 'no'
stages:
  - {epochs: 1, learning_rate: 0.01, warmup: 0, captions: 1}
  - {epochs: 1, learning_rate: 0.01, warmup: 0, captions: 1, unfreeze_from: conv_head, encoder_learning_rate: 0.01}
"""
    )
    start = ["--recipe", str(recipe), "--backbone", str(tmp_path / "timm.safetensors")]
    assert main(["train", str(blocks), "--out", str(tmp_path / "out"), *start]) == 0
    trained = ImageCaptioner.from_pretrained(tmp_path / "out" / "best")
    config, own = trained.config, backbone.pretrained_cfg
    assert (config.image_size, config.image_mean, config.image_std) == (own["input_size"][-1], own["mean"], own["std"])
    caption = trained.caption(blocks / "0.png")
    assert caption.words[0].attention.shape == (trained.encoder.height, trained.encoder.width)
    caption.overlay(word=0)
    frozen = trained.encoder.network.get_submodule("conv_stem").weight
    torch.testing.assert_close(frozen, folded_stem(backbone), atol=1e-3, rtol=1e-2)
    trained.save_pretrained(tmp_path / "again")
    assert ImageCaptioner.from_pretrained(tmp_path / "again").caption(blocks / "0.png").text == caption.text


def folded_stem(backbone: torch.nn.Module) -> torch.Tensor:
    norm = backbone.bn1
    return backbone.conv_stem.weight * (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape(-1, 1, 1, 1)


def test_what_a_recipe_says_of_preprocessing_is_kept() -> None:
    said = {"encoder": "timm:tf_efficientnet_lite2", "image_size": 96, "image_std": [0.2, 0.2, 0.2]}
    stages = [{"epochs": 1, "learning_rate": 0.1}]
    config = Recipe.from_plain({"model": said, "stages": stages}, "recipe").captioner_config(100)
    assert (config.image_size, config.image_mean, config.image_std) == (96, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
