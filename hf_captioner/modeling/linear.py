"""A linear map, on a processor through oneDNN: with few rows PyTorch's own choice is half as fast on many of them."""

import torch
from torch import Tensor
from torch.nn import functional as F

Packed = tuple[int, Tensor]

LARGE = 1 << 20
"""Numbers in a weight from which on oneDNN is worth its conversions even for a single row."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (R, i), weight (o, i), bias (o,) -> (R, o), as `torch.nn.functional.linear`."""
    small = len(x) == 1 and weight.numel() < LARGE
    if small or not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    product: Tensor = F.linear(x.to_mkldnn(), _packed(weight)).to_dense()
    return product if bias is None else product.add_(bias)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not weight.is_inference()  # its changes could not be noticed
        and torch.backends.mkldnn.is_available()
    )


def _packed(weight: Tensor) -> Tensor:
    """The weight as oneDNN takes it, kept with the weight until that changes."""
    kept: Packed | None = getattr(weight, "packed", None)
    if kept is None or kept[0] != weight._version:
        kept = (weight._version, weight.detach().to_mkldnn())
        weight.packed = kept  # type: ignore[attr-defined]
    return kept[1]
