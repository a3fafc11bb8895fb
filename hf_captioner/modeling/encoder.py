"""The encoder: pixels to a feature map, by an ImageNet network that is cut at a layer."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import BackboneError, ConfigError
from hf_captioner.modeling.backbone import Backbone, backbone_of, steps_of

_BUILDING = Lock()
"""Held while a network is built, which two threads may ask for."""


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
        """Raises ConfigError for a network, a layer or an image size that gives no feature map."""
        super().__init__()
        self.config = config
        self.network: nn.Module = _folded(_cut(backbone_of(config.encoder).build(), config))
        left = [name for name, _ in self.network.named_buffers()]
        if left:
            raise ConfigError(
                f"CaptionerConfig.encoder is {config.encoder!r}, of which {left[0]} is no weight and cannot be folded "
                "into one; expected a network in which every batch norm follows its convolution."
            )
        size = config.image_size
        try:
            with torch.no_grad():
                shape = self.network(torch.zeros(1, 3, size, size, device=next(self.parameters()).device)).shape
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            raise ConfigError(
                f"CaptionerConfig.image_size is {size}; expected a size that {config.encoder} can read ({error})."
            ) from error
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ConfigError(
                f"CaptionerConfig.encoder is {config.encoder!r}, which makes {list(shape[1:])} of an image; expected a "
                "convolutional network, which makes (channels, height, width)."
            )
        self.channels = int(shape[1])
        self.height, self.width = int(shape[2]), int(shape[3])

    @classmethod
    def unbuilt(cls, config: CaptionerConfig, shapes: dict[str, list[int]], feature_map: tuple[int, int, int]) -> Self:
        """An encoder of which another runtime computes the feature map, (C, h, w), and is known what it was built of:
        parameters of these shapes. Its network, whose library takes seconds to import, is built when it is called.
        """
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder.config, encoder.network = config, _UnbuiltNetwork(shapes)
        encoder.channels, encoder.height, encoder.width = feature_map
        return encoder

    def build(self) -> None:
        """Build the network around its parameters, where that was not done yet."""
        with _BUILDING:
            if isinstance(self.network, _UnbuiltNetwork):
                with torch.device("meta"):
                    network = _folded(_cut(backbone_of(self.config.encoder).build(), self.config))
                network.load_state_dict(dict(self.network.named_parameters()), assign=True)
                self.network = network

    @property
    def stride(self) -> float:
        """Pixels of the resized image from one cell of the feature map to the next."""
        return self.config.image_size / self.height

    def forward(self, pixels: Tensor) -> FeatureMap:
        self.build()
        features = self.network(pixels.to(next(self.parameters()).dtype))
        return FeatureMap(features.flatten(2).transpose(1, 2), features.shape[2], features.shape[3])

    def load_backbone(self, source: str | Path) -> None:
        """Load ImageNet weights in the names of the network's library: a safetensors file of any float type, or
        `torchvision` to download its own. What lies behind the feature map may be missing.

        Raises BackboneError where they are not reached or are not this network's tensors.
        """
        self.build()
        own = backbone_of(self.config.encoder)
        theirs = f"Backbone weights {source} are not {own.library}'s {own.name}"
        state = own.download() if str(source) == "torchvision" else _read(source, own)
        whole = own.build()
        cut = _cut(whole, self.config)
        try:
            problems = whole.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise BackboneError(f"{theirs}: {error}") from error
        needed = {key for key in cut.state_dict() if not key.endswith("num_batches_tracked")}
        missing = [key for key in problems.missing_keys if key in needed]
        if missing or problems.unexpected_keys:
            raise BackboneError(f"{theirs}: missing {missing[:3]}, unknown {problems.unexpected_keys[:3]}.")
        size = self.config.image_size
        pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        expected, found = _within(whole, cut, pixels), _folded(cut)
        with torch.no_grad():
            same = [float((found(pixels) - each).abs().max()) <= 1e-3 * float(each.abs().max()) for each in expected]
        if same != [True]:
            raise BackboneError(
                f"{own.library}'s {own.name} is no plain chain of its modules, which an encoder here has to be."
            )
        self.network.load_state_dict(found.state_dict())

    def unfreeze_from(self, first: str | None) -> None:
        """Unfreeze the parameters from the module `first` on (`layer2`, `features.17`, ...); None freezes all."""
        self.build()
        names = [name for name, _ in self.network.named_parameters()]
        start = next((i for i, name in enumerate(names) if first and name.startswith(f"{first}.")), None)
        if first and start is None:
            raise ConfigError(f"{self.config.encoder} has no module {first!r} with weights before its feature map.")
        for index, parameter in enumerate(self.network.parameters()):
            parameter.requires_grad_(start is not None and index >= start)


class _UnbuiltNetwork(nn.Module):
    """A network's parameters under their names, in no network."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            holder: nn.Module = self
            for part in path:
                if part not in holder._modules:
                    holder.add_module(part, nn.Module())
                holder = holder.get_submodule(part)
            holder.register_parameter(last, nn.Parameter(torch.empty(shape)))


def _read(file: str | Path, own: Backbone) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        word = ", or the word torchvision" if own.library == "torchvision" else ""
        raise BackboneError(
            f"Backbone weights {file}: {error}; expected a safetensors file of {own.library}'s {own.name}{word}."
        ) from error


def _cut(whole: nn.Module, config: CaptionerConfig) -> nn.Sequential:
    """The network up to the config's layer: (B, 3, S, S) -> (B, C, h, w); its modules are the whole network's."""
    steps = steps_of(whole)
    layer = config.encoder_layer or next(reversed(steps))
    first, _, rest = layer.partition(".")
    last = steps.get(first)
    inner = dict(last.named_children()) if isinstance(last, nn.Sequential) else {}
    if last is None or (rest and rest not in inner):
        raise ConfigError(
            f"CaptionerConfig.encoder_layer is {layer!r}; {config.encoder} has the layers {', '.join(inner or steps)}."
        )
    if rest:
        steps[first] = _up_to(rest, inner)
    return _up_to(first, steps)


def _within(whole: nn.Module, cut: nn.Sequential, pixels: Tensor) -> list[Tensor]:
    """What the last module of the cut gives each time that the whole network calls it."""
    last: nn.Module = cut[-1]
    if isinstance(last, nn.Sequential) and last not in set(whole.modules()):
        last = last[-1]
    outputs: list[Tensor] = []
    with last.register_forward_hook(lambda module, given, output: outputs.append(output.clone())), torch.no_grad():
        whole(pixels)
    return outputs


def _up_to(name: str, steps: dict[str, nn.Module]) -> nn.Sequential:
    names = list(steps)
    return nn.Sequential(OrderedDict((kept, steps[kept]) for kept in names[: names.index(name) + 1]))


def _folded(cut: nn.Sequential) -> nn.Sequential:
    """The network with each batch norm folded into the convolution before it, in place."""
    for module in list(cut.modules()):
        for (name, _), (norm_name, norm) in pairwise(list(module.named_children())):
            holder, name = _last(module, name)
            conv = getattr(holder, name)
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            if conv.out_channels == norm.num_features:
                setattr(holder, name, fuse_conv_bn_eval(conv, norm))
                # timm's batch norms hold the activation that follows
                setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
    return cut.eval()


def _last(holder: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Where the module that a child ends with is: in the child itself, or where it is a chain in the chain's last."""
    while isinstance(chain := getattr(holder, name), nn.Sequential) and len(chain):
        holder, name = chain, list(chain._modules)[-1]
    return holder, name
