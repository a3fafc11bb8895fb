"""How far a caption can be trusted, from its word probabilities and its image's distance from the training images.

confidence = sigmoid(intercept + slope * p^2) * sigmoid((ood_threshold - r) / ood_temperature)

p is the geometric mean of the word probabilities; squared, as the odds of a good caption were found to grow faster than
with p itself. r is the distance of the image from the training images: with m the mean of its projected feature map,
the norm of m - center after its projection on the principal directions of the training images is removed (the residual
of ViM, Wang et al. 2022).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hf_captioner.config import ConfidenceConfig

MAX_DIRECTIONS = 64


class Confidence(nn.Module):
    """The confidence of a captioner with this hidden size; its tensors are measured, not trained."""

    def __init__(self, config: ConfidenceConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.center = nn.Parameter(torch.zeros(hidden_size), requires_grad=False)
        self.directions = nn.Parameter(torch.zeros(num_directions(hidden_size), hidden_size), requires_grad=False)

    def distance(self, means: Tensor) -> Tensor:
        """Means of projected feature maps (B, d) -> r (B,)."""
        return residual(means, self.center, self.directions)

    def forward(self, distance: float, log_probs: Sequence[float]) -> float:
        """The confidence, 0 to 1, of a caption with these words; 0 for a caption without words."""
        if not log_probs:
            return 0.0
        fitted = self.config
        logit = fitted.intercept + fitted.slope * math.exp(2 * sum(log_probs) / len(log_probs))
        return _sigmoid(logit) * _sigmoid((fitted.ood_threshold - distance) / fitted.ood_temperature)


def num_directions(hidden_size: int) -> int:
    """How many principal directions are kept of a space of this size."""
    return min(MAX_DIRECTIONS, max(1, hidden_size // 4))


def residual(means: Tensor, center: Tensor, directions: Tensor) -> Tensor:
    """(B, d), (d,) and orthonormal (k, d) -> the norm of what is left of each row, (B,)."""
    centred = means - center
    return (centred - centred @ directions.T @ directions).norm(dim=1)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(0.5 * x))
