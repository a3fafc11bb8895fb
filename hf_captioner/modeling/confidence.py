"""How ood_threshold a caption can be trusted, from its words' probabilities and from how strange the image is.

confidence = sigma(intercept + slope * p^2) * sigma((ood_threshold - r) / ood_temperature)

p is the geometric mean of the probabilities of the caption's words; squared, as the odds of a good caption were found
to grow faster than with p itself. r is the distance of the image from those trained on: with m the mean of its
projected grid, the length of what is left of m - center after its part along the directions in which training
images differ most is taken away (the residual of ViM, Wang et al. 2022).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hf_captioner.config import Calibration

DIRECTIONS = 64


class Confidence(nn.Module):
    """The confidence of a captioner of this width; its tensors are measured, not trained."""

    def __init__(self, calibration: Calibration, width: int) -> None:
        super().__init__()
        self.calibration = calibration
        self.center = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.directions = nn.Parameter(torch.zeros(directions(width), width), requires_grad=False)

    def distance(self, means: Tensor) -> Tensor:
        """Means of projected grids (B, d) -> r (B,)."""
        return residual(means, self.center, self.directions)

    def forward(self, distance: float, log_probs: Sequence[float]) -> float:
        """The confidence, 0 to 1, of a caption with these words; 0 for a caption without words."""
        if not log_probs:
            return 0.0
        known = self.calibration
        good = known.intercept + known.slope * math.exp(2 * sum(log_probs) / len(log_probs))
        return _sigma(good) * _sigma((known.ood_threshold - distance) / known.ood_temperature)


def directions(width: int) -> int:
    """How many directions are kept of a space of this width."""
    return min(DIRECTIONS, max(1, width // 4))


def residual(means: Tensor, center: Tensor, directions: Tensor) -> Tensor:
    """(B, d), (d,) and orthonormal (k, d) -> the length of what is left of each row, (B,)."""
    centred = means - center
    return (centred - centred @ directions.T @ directions).norm(dim=1)


def _sigma(x: float) -> float:
    return 0.5 * (1 + math.tanh(0.5 * x))
