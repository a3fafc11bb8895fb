"""A linear map, on a processor through oneDNN: for few rows PyTorch's own choice is half as fast on many of them."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

LARGE = 1 << 20
"""Numbers in a weight from which oneDNN is worth its conversions even for a single row."""

_packed = WeakTensorKeyDictionary()
"""Weight -> (its version, the weight as oneDNN takes it). Not on the weight itself, which is pickled and copied."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (R, i), weight (o, i), bias (o,) -> (R, o), as `torch.nn.functional.linear`."""
    if not _by_onednn(x, weight) or (x.shape[0] == 1 and weight.numel() < LARGE):
        return F.linear(x, weight, bias)
    product: Tensor = F.linear(x.to_mkldnn(), _pack(weight)).to_dense()
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


def _pack(weight: Tensor) -> Tensor:
    """The weight as oneDNN takes it, kept until the weight changes or goes."""
    kept: tuple[int, Tensor] | None = _packed.get(weight)
    if kept is None or kept[0] != weight._version:
        kept = (weight._version, weight.detach().to_mkldnn())
        _packed[weight] = kept
    return kept[1]
