"""A torchvision backbone, cut at a named node, that turns pixels into a grid of feature vectors."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from hf_captioner.config import CaptionerConfig, ConfigError


class BackboneError(ConfigError):
    """Backbone weights that are not there, or are another network's."""


BUILD_OPTIONS: dict[str, dict[str, bool]] = {"inception_v3": {"init_weights": False, "transform_input": True}}


@dataclass(frozen=True)
class Grid:
    """What the encoder saw: values (B, N, C) with N = height * width cells, row by row from the top left."""

    values: Tensor
    height: int
    width: int
    mask: Tensor | None = None
    """(B, N) bool, True where there is a cell; None where every cell is real."""


class Encoder(nn.Module):
    """Pixels (B, 3, S, S) -> Grid.

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
                shape = self.network(torch.zeros(1, 3, size, size, device=next(self.parameters()).device))["grid"].shape
        except RuntimeError as error:
            raise ConfigError(
                f"CaptionerConfig.image_size is {size}; expected a size that {config.encoder} can read ({error})."
            ) from error
        if len(shape) != 4:
            raise ConfigError(
                f"CaptionerConfig.encoder_node is {config.encoder_node!r}, whose output has {len(shape)} dimensions; "
                "expected a node with a (channels, height, width) grid."
            )
        self.channels = int(shape[1])
        self.height, self.width = int(shape[2]), int(shape[3])

    @property
    def stride(self) -> float:
        """Pixels of the resized photograph a grid cell spans, from one cell to the next."""
        return self.config.image_size / self.height

    def forward(self, pixels: Tensor) -> Grid:
        features = self.network(pixels)["grid"]
        return Grid(features.flatten(2).transpose(1, 2), features.shape[2], features.shape[3])

    def load_backbone(self, source: str | Path) -> None:
        """Load ImageNet weights in torchvision's names: a local safetensors file, or `torchvision` to download its own.

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

    def train_from(self, first: str | None) -> None:
        """Make trainable the parameters from the module `first` on (`layer2`, `features.17`, ...); None: none."""
        names = [name for name, _ in self.network.named_parameters()]
        start = next((i for i, name in enumerate(names) if first and name.startswith(f"{first}.")), None)
        if first and start is None:
            raise ConfigError(f"{self.config.encoder} has no module {first!r} with weights before its grid.")
        for index, parameter in enumerate(self.network.parameters()):
            parameter.requires_grad_(start is not None and index >= start)


def _backbone(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, **BUILD_OPTIONS.get(name, {})).eval()


def _cut(backbone: nn.Module, config: CaptionerConfig) -> nn.Module:
    """The backbone up to the config's node, batch norm folded, as a module that returns {"grid": (B, C, h, w)}."""
    try:
        cut = create_feature_extractor(backbone, {config.encoder_node: "grid"}, suppress_diff_warning=True)
    except ValueError as error:
        nodes = get_graph_node_names(backbone, suppress_diff_warning=True)[1]
        raise ConfigError(
            f"CaptionerConfig.encoder_node is {config.encoder_node!r}; {config.encoder} has the nodes "
            f"{', '.join(nodes)}."
        ) from error
    return fuse(cut.eval(), inplace=True)
