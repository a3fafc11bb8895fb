"""The seam of the encoders: an ImageNet network by its name, of torchvision or, as `timm:NAME`, of timm."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from hf_captioner.config import TIMM
from hf_captioner.errors import BackboneError, ConfigError, require_extra

if TYPE_CHECKING:  # its import takes longer than PyTorch's own, and ONNX Runtime does without
    from torchvision.models import Inception3

BUILD_OPTIONS: dict[str, dict[str, bool]] = {"inception_v3": {"init_weights": False, "transform_input": True}}
HEAD = ("avgpool", "global_pool", "pre_logits", "head", "fc", "classifier")
"""Where the feature map ends: the names that both libraries give to what pools it and classifies."""
MAX_PARAMETERS = 200_000_000
"""Of one of timm's networks, its classifier included."""
BESIDE = ("AuxLogits",)
"""Inception's second head, beside the chain."""


class Backbone(Protocol):
    """A network by its name, and whose names its weights have."""

    name: str
    library: str

    def build(self) -> nn.Module:
        """The whole network with random weights, nothing downloaded. Raises ConfigError."""

    def preprocessing(self) -> dict[str, Any]:
        """The fields of CaptionerConfig that differ from its defaults for this network's ImageNet weights."""

    def download(self) -> dict[str, Tensor]:
        """The library's own ImageNet weights. Raises BackboneError."""


class _Torchvision:
    library = "torchvision"

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self) -> nn.Module:
        import torchvision

        return torchvision.models.get_model(self.name, weights=None, **BUILD_OPTIONS.get(self.name, {})).eval()

    def preprocessing(self) -> dict[str, Any]:
        return {}

    def download(self) -> dict[str, Tensor]:
        import torchvision

        weights = torchvision.models.get_model_weights(self.name).DEFAULT
        try:
            return weights.get_state_dict(check_hash=True, weights_only=True)
        except OSError as error:
            raise BackboneError(
                f"torchvision's weights for {self.name} were not reached ({error}); connect, or give a local file."
            ) from error


class _Timm:
    library = "timm"

    def __init__(self, encoder: str) -> None:
        require_extra(f"The encoder {encoder}", "timm", "timm")
        import timm

        self.name = encoder.removeprefix(TIMM)
        if not timm.is_model(self.name):
            raise ConfigError(
                f"timm {timm.__version__} has no model {self.name!r}; timm.list_models() names those it has."
            )
        self._create: Callable[..., nn.Module] = timm.create_model
        pretrained = timm.get_pretrained_cfg(self.name)
        self._pretrained: dict[str, Any] = pretrained.to_dict() if pretrained else {}

    def build(self) -> nn.Module:
        with torch.device("meta"):  # a stranger's checkpoint may name a network of billions
            parameters = sum(parameter.numel() for parameter in self._random().parameters())
        if parameters > MAX_PARAMETERS:
            raise ConfigError(f"timm's {self.name} has {parameters:,} parameters; expected at most {MAX_PARAMETERS:,}.")
        return self._random().eval()

    def _random(self) -> nn.Module:
        try:
            return self._create(self.name, pretrained=False)
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            raise ConfigError(f"timm's {self.name} cannot be built here ({error}); take another encoder.") from error

    def preprocessing(self) -> dict[str, Any]:
        own = self._pretrained
        return {"image_size": own["input_size"][-1], "image_mean": own["mean"], "image_std": own["std"]} if own else {}

    def download(self) -> dict[str, Tensor]:
        raise BackboneError(
            f"{self.name} is timm's, whose weights are not downloaded; give a safetensors file in timm's names, such "
            f"as model.safetensors of {self._pretrained.get('hf_hub_id') or 'its repository'} on the Hub."
        )


def backbone_of(encoder: str) -> Backbone:
    """The network that `CaptionerConfig.encoder` names. Raises ConfigError for one that is not to be had here."""
    return _Timm(encoder) if encoder.startswith(TIMM) else _Torchvision(encoder)


class _InceptionScale(nn.Module):
    """Pixels normalised as for ImageNet -> the (x - 0.5) / 0.5 that Inception's weights expect."""

    def __init__(self, backbone: "Inception3") -> None:
        super().__init__()
        self.transform = backbone._transform_input

    def forward(self, pixels: Tensor) -> Tensor:
        return self.transform(pixels)


def _is_inception(module: nn.Module) -> TypeGuard["Inception3"]:
    import torchvision

    return isinstance(module, torchvision.models.Inception3)


def steps_of(module: nn.Module) -> dict[str, nn.Module]:
    """The modules from the pixels to the feature map, in the order in which they are called.

    Up to their pooling these networks are chains of their modules, so no tracing is needed: torch.fx would replace
    every module's call while it traces, also in other threads. Of timm's networks not every one is such a chain;
    `Encoder` refuses the others.
    """
    steps: dict[str, nn.Module] = {}
    if _is_inception(module):
        steps["scale"] = _InceptionScale(module)
    for name, child in module.named_children():
        if name in HEAD:
            break
        if name not in BESIDE:
            steps[name] = child
    return steps
