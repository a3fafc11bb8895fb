"""Calibrate a captioner's confidence.

`python -m hf_captioner.training.calibrate --data DIR --model FOLDER [--unlike DIR] [--write]`

A caption is good when its CIDEr is above the validation median. The confidence (`modeling/confidence.py`) is fitted on
each half of the validation images and measured on the other: expected calibration error, reliability curve, and the
area under the ROC curve for good captions against the others and for validation images against images unlike them. The
one fitted on all validation images is what --write puts into the checkpoint.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import ConfidenceConfig
from hf_captioner.errors import CheckpointError, ConfigError, DataError, ImageError
from hf_captioner.hub.evaluation import Calibration
from hf_captioner.images import IMAGE_SUFFIXES, ImageSource
from hf_captioner.modeling.confidence import Confidence, num_directions, residual
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.data import Record, load_split
from hf_captioner.training.feature_cache import encoded
from hf_captioner.training.metrics import cider_of_each

TRAINING = 2000
"""Training images that say what is familiar."""
BINS = 10
"""Of equal width, in the calibration error and the reliability curve."""
HALVED, RARE = 0.99, 0.95
"""Quantiles of the validation images' distances at which the confidence is halved, and a tenth is taken off."""
OBJECTS = (
    *("chelsea", "coffee", "rocket", "page", "text", "coins", "clock", "moon", "brick", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "retina", "cell", "horse", "logo"),
)
"""scikit-image's images without people and dogs: a cat, a cup, a rocket, pages, coins, textures, cells, ..."""
GENERATED = 6
"""Images of noise, of blots and of text each: about as many as there are others."""


@torch.inference_mode()
def feature_means(captioner: ImageCaptioner, grid: FeatureMap) -> Tensor:
    """(B, d): the mean of each image's projected grid."""
    return captioner.decoder.start(grid).features.mean().float().cpu()


def caption_all(captioner: ImageCaptioner, images: Sequence[ImageSource]) -> tuple[list[str], Tensor, Tensor]:
    """The images' captions, the geometric means (n,) of their words' probabilities, the means (n, d) of their
    grids."""
    captions, means = [], []
    settings = captioner.prepare_generation_config(
        {"num_return_sequences": 1, "min_length": max(1, captioner.generation_config.min_length)}
    )
    for grid in encoded(captioner, images):
        captions += captioner.caption_features(grid, settings)
        means.append(feature_means(captioner, grid))
    log_probs = [[math.log(word.probability) for word in caption.words] for caption in captions]
    probabilities = torch.tensor([sum(words) / len(words) for words in log_probs]).exp()
    return [caption.text for caption in captions], probabilities, torch.cat(means)


def familiar(means: Tensor) -> tuple[Tensor, Tensor]:
    """Training images' means (., d) -> their center (d,) and the directions (k, d) in which they differ most."""
    center = means.mean(0)
    _, _, axes = torch.linalg.svd(means - center, full_matrices=False)
    # As they will be stored, so that what is fitted is what is used.
    return center.half().float(), axes[: num_directions(means.shape[1])].half().float()


def fit(probabilities: Tensor, distances: Tensor, good: Tensor) -> ConfidenceConfig:
    """The confidence's parameters from geometric mean probabilities, distances and whether each caption was good, all
    (n,)."""
    rare, ood_threshold = (float(distances.quantile(share)) for share in (RARE, HALVED))
    ood_temperature = max((ood_threshold - rare) / math.log(9), 1e-3)
    gate = torch.sigmoid((ood_threshold - distances) / ood_temperature)
    line = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        sure = torch.sigmoid(line[0] + line[1] * probabilities.square()) * gate
        # A little weight decay, so that a few captions that can be told apart do not give infinite numbers.
        found = F.binary_cross_entropy(sure, good) + 1e-5 * line.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    intercept, slope = line.detach().tolist()
    return ConfidenceConfig(intercept, slope, ood_threshold, ood_temperature)


def reliability(sure: Tensor, good: Tensor) -> list[tuple[float, float, int]]:
    """(n,) and (n,) -> mean confidence, share of good captions and count of each bin that holds any."""
    bins = (sure * BINS).long().clamp(max=BINS - 1)
    held = [bins == index for index in range(BINS) if bool((bins == index).any())]
    return [(float(sure[held_by].mean()), float(good[held_by].mean()), int(held_by.sum())) for held_by in held]


def calibration_error(curve: Sequence[tuple[float, float, int]]) -> float:
    """Expected calibration error (Guo et al. 2017) of a reliability curve."""
    return sum(abs(sure - good) * count for sure, good, count in curve) / sum(count for _, _, count in curve)


def area_under_roc(higher: Tensor, lower: Tensor) -> float:
    """How often one of `higher` is more than one of `lower`; a draw counts half."""
    above, below = higher[:, None] > lower, higher[:, None] < lower
    return float(0.5 + 0.5 * (above.float() - below.float()).mean())


def unlike_images(folder: Path | None) -> list[ImageSource]:
    """Images unlike the training images: a folder's, or scikit-image's, noise, blots and pages of text."""
    if folder is not None:
        found: list[ImageSource] = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise DataError(f"{folder} holds no images; expected a folder of images unlike the training data.")
        return found
    random = np.random.default_rng(1)
    drawn = [Image.fromarray(random.integers(0, 256, (224, 224, 3), dtype=np.uint8)) for _ in range(GENERATED)]
    blots = [Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(GENERATED)]
    drawn += [blot.resize((224, 224), Image.Resampling.BICUBIC) for blot in blots]
    drawn += [_page_of_text(random) for _ in range(GENERATED)]
    return [*(_image(name) for name in OBJECTS), *drawn]


def _image(name: str) -> Image.Image:
    pixels = np.asarray(getattr(skimage.data, name)())
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (255 * pixels).astype(np.uint8)).convert("RGB")


def _page_of_text(random: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (448, 448), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for top in range(8, 440, 22):
        words = ("".join(map(chr, random.integers(97, 123, random.integers(2, 10)))) for _ in range(9))
        draw.text((10, top), " ".join(words), "black", font)
    return page


def calibrate(
    captioner: ImageCaptioner, train: Sequence[Record], validation: Sequence[Record], unlike: Sequence[ImageSource]
) -> tuple[Confidence, Calibration]:
    """The confidence of a captioner, fitted on all validation images, and how well it does by cross-fitting."""
    every = max(1, len(train) // TRAINING)
    sample = [record.path for record in train[::every]]
    center, axes = familiar(torch.cat([feature_means(captioner, grid) for grid in encoded(captioner, sample)]))
    captions, probabilities, means = caption_all(captioner, [record.path for record in validation])
    ciders = torch.tensor(cider_of_each(captions, [record.captions for record in validation]))
    good, distances = (ciders > ciders.median()).float(), residual(means, center, axes)
    sure = torch.zeros(len(validation))
    for half, other in (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2)):
        fitted = Confidence(fit(probabilities[half], distances[half], good[half]), captioner.config.hidden_size)
        sure[other] = _confidences(fitted, probabilities[other], distances[other])
    confidence = Confidence(fit(probabilities, distances, good), captioner.config.hidden_size)
    confidence.center.data, confidence.directions.data = center, axes
    _, strange_probabilities, strange_means = caption_all(captioner, unlike)
    strange = _confidences(confidence, strange_probabilities, confidence.distance(strange_means))
    curve = reliability(sure, good)
    return confidence, Calibration(
        error=calibration_error(curve),
        auroc_correct=area_under_roc(sure[good == 1], sure[good == 0]),
        auroc_ood=area_under_roc(sure, strange),
        predicted=tuple(round(predicted, 4) for predicted, _, _ in curve),
        observed=tuple(round(share, 4) for _, share, _ in curve),
        captions=tuple(count for _, _, count in curve),
    )


def _confidences(confidence: Confidence, probabilities: Tensor, distances: Tensor) -> Tensor:
    pairs = zip(distances.tolist(), probabilities.log().tolist(), strict=True)
    return torch.tensor([confidence(distance, [log_prob]) for distance, log_prob in pairs])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hf_captioner.training.calibrate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="images and captions; see train/data.py")
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--unlike", type=Path, help="a folder of images unlike the training data, instead of the own")
    parser.add_argument("--write", action="store_true", help="store the confidence in the checkpoint")
    options = parser.parse_args(argv)
    try:
        train, validation = (
            load_split(options.data, split, split_file=options.splits, model=str(options.model))
            for split in ("train", "validation")
        )
        captioner = ImageCaptioner.from_pretrained(options.model)
        confidence, calibration = calibrate(captioner, train, validation, unlike_images(options.unlike))
        _print(calibration)
        if options.write:
            captioner.confidence = confidence
            captioner.config = dataclasses.replace(captioner.config, confidence=confidence.config)
            captioner.evaluation = dataclasses.replace(captioner.evaluation, calibration=calibration)
            captioner.save_pretrained(options.model)
    except (CheckpointError, ConfigError, DataError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _print(found: Calibration) -> None:
    print("| confidence | good captions | captions |\n|---|---|---|")
    for sure, good, count in zip(found.predicted, found.observed, found.captions, strict=True):
        print(f"| {sure:.2f} | {good:.2f} | {count} |")
    print(f"\nexpected calibration error: {found.error:.3f}")
    print(f"area under the ROC curve, good captions against others: {found.auroc_correct:.3f}")
    print(f"area under the ROC curve, validation images against images unlike them: {found.auroc_ood:.3f}")


if __name__ == "__main__":
    sys.exit(main())
