"""The encoder: pixels to a feature map, by a torchvision network that is cut at a named layer."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import BackboneError, ConfigError

BUILD_OPTIONS: dict[str, dict[str, bool]] = {"inception_v3": {"init_weights": False, "transform_input": True}}


@dataclass(frozen=True)
class FeatureMap:
    """values (B, N, C): N = height * width cells, row by row from the top left."""

    values: Tensor
    height: int
    width: int
    mask: Tensor | None = None
    """(B, N) bool, True where there is a cell; None where every cell is real."""

    def split(self, images: int) -> "list[FeatureMap]":
        """In parts of so many images."""
        values = self.values.split(images)
        masks = [None] * len(values) if self.mask is None else self.mask.split(images)
        return [FeatureMap(v, self.height, self.width, mask) for v, mask in zip(values, masks, strict=True)]


class Encoder(nn.Module):
    """Pixels (B, 3, S, S) -> FeatureMap.

    Batch norm is always frozen, so it is folded into the convolutions: the forward pass is quicker, and
    fine-tuning moves the folded weights.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _cut(_backbone(config.encoder), config)
        size = config.image_size
        try:
            with torch.no_grad():
                shape = self.network(torch.zeros(1, 3, size, size, device=next(self.parameters()).device)).shape
        except RuntimeError as error:
            raise ConfigError(
                f"CaptionerConfig.image_size is {size}; expected a size that {config.encoder} can read ({error})."
            ) from error
        self.channels = int(shape[1])
        self.height, self.width = int(shape[2]), int(shape[3])

    @property
    def stride(self) -> float:
        """Pixels of the resized image from one cell of the feature map to the next."""
        return self.config.image_size / self.height

    def forward(self, pixels: Tensor) -> FeatureMap:
        features = self.network(pixels)
        return FeatureMap(features.flatten(2).transpose(1, 2), features.shape[2], features.shape[3])

    def load_backbone(self, source: str | Path) -> None:
        """Load ImageNet weights in torchvision's names: a safetensors file, or `torchvision` to download its own.

        Raises BackboneError where they are not reached or are not exactly this backbone's tensors.
        """
        name = self.config.encoder
        if str(source) == "torchvision":
            try:
                state = torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(
                    check_hash=True, weights_only=True
                )
            except OSError as error:
                raise BackboneError(
                    f"torchvision's weights for {name} were not reached ({error}); connect, or give a local file."
                ) from error
        else:
            try:
                state = load_file(source)
            except (OSError, SafetensorError) as error:
                raise BackboneError(
                    f"Backbone weights {source}: {error}; expected a safetensors file of torchvision's {name}, "
                    "or the word torchvision."
                ) from error
        backbone = _backbone(name)
        try:
            problems = backbone.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise BackboneError(f"Backbone weights {source} are not torchvision's {name}: {error}") from error
        missing = [key for key in problems.missing_keys if not key.endswith("num_batches_tracked")]
        if missing or problems.unexpected_keys:
            raise BackboneError(
                f"Backbone weights {source} are not torchvision's {name}: "
                f"missing {missing[:3]}, unknown {problems.unexpected_keys[:3]}."
            )
        self.network.load_state_dict(_cut(backbone, self.config).state_dict())

    def unfreeze_from(self, first: str | None) -> None:
        """Unfreeze the parameters from the module `first` on (`layer2`, `features.17`, ...); None freezes all."""
        names = [name for name, _ in self.network.named_parameters()]
        start = next((i for i, name in enumerate(names) if first and name.startswith(f"{first}.")), None)
        if first and start is None:
            raise ConfigError(f"{self.config.encoder} has no module {first!r} with weights before its feature map.")
        for index, parameter in enumerate(self.network.parameters()):
            parameter.requires_grad_(start is not None and index >= start)


def _backbone(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, **BUILD_OPTIONS.get(name, {})).eval()


class _InceptionScale(nn.Module):
    """Pixels normalised as for ImageNet -> the (x - 0.5) / 0.5 that Inception's weights expect."""

    def __init__(self, backbone: torchvision.models.Inception3) -> None:
        super().__init__()
        self.transform = backbone._transform_input

    def forward(self, pixels: Tensor) -> Tensor:
        return self.transform(pixels)


def _cut(backbone: nn.Module, config: CaptionerConfig) -> nn.Sequential:
    """The network up to the config's layer, with batch norm folded: (B, 3, S, S) -> (B, C, h, w).

    Up to their pooling the four networks are chains of their modules, so no tracing is needed: torch.fx would replace
    every module's call while it traces, also in other threads.
    """
    steps: dict[str, nn.Module] = {}
    if isinstance(backbone, torchvision.models.Inception3):
        steps["scale"] = _InceptionScale(backbone)
    for name, module in backbone.named_children():
        if name == "avgpool":
            break
        if name != "AuxLogits":  # Inception's second head, beside the chain
            steps[name] = module
    layer = str(config.encoder_layer)
    first, _, rest = layer.partition(".")
    last = steps.get(first)
    inner = dict(last.named_children()) if isinstance(last, nn.Sequential) else {}
    if last is None or (rest and rest not in inner):
        raise ConfigError(
            f"CaptionerConfig.encoder_layer is {layer!r}; {config.encoder} has the layers {', '.join(inner or steps)}."
        )
    if rest:
        steps[first] = _up_to(rest, inner)
    cut = _up_to(first, steps)
    for module in list(cut.modules()):
        _fold_batch_norm(module)
    return cut.eval()


def _up_to(name: str, steps: dict[str, nn.Module]) -> nn.Sequential:
    names = list(steps)
    return nn.Sequential(OrderedDict((kept, steps[kept]) for kept in names[: names.index(name) + 1]))


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm among the module's children into the convolution before it."""
    for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
