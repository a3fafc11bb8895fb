"""Calibrate a captioner's confidence.

`python -m hf_captioner.training.calibrate --data DATA [DATA ...] --model FOLDER [--ood DIR] [--write]`

A caption counts as correct when its CIDEr is above the validation median. The confidence (`modeling/confidence.py`) is
fitted on each half of the validation images and measured on the other: expected calibration error, reliability curve,
and the area under the ROC curve for correct captions against the others, and for validation images against
out-of-distribution (OOD) images. Several data sets are taken together; the error is told of each besides.
--write stores the confidence that is fitted on all validation images.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import ConfidenceConfig
from hf_captioner.errors import DataError
from hf_captioner.hub.evaluation import Calibration
from hf_captioner.images import IMAGE_SUFFIXES, ImageSource
from hf_captioner.modeling.confidence import Confidence, num_directions, residual
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.command import (
    checkpoint_folder,
    command_parser,
    load_captioner,
    measured_split,
    run_command,
)
from hf_captioner.training.data import Record
from hf_captioner.training.evaluate import cider_of_records
from hf_captioner.training.feature_cache import encoded
from hf_captioner.training.rows import counted

TRAINING_SAMPLE = 2000
"""Training images from which the mean and the principal directions are estimated."""
FEWEST = 10
"""Validation images: half of them fit the confidence that the other half measures."""
BINS = 10
"""Of equal width, in the calibration error and the reliability curve."""
HALVED_QUANTILE, TENTH_OFF_QUANTILE = 0.99, 0.95
"""Quantiles of the validation images' distances at which the confidence is halved, and a tenth is taken off."""
OOD_IMAGES = (
    *("page", "text", "logo", "horse", "colorwheel", "checkerboard", "shepp_logan_phantom", "coins"),
    *("moon", "hubble_deep_field", "brick", "grass", "gravel"),
    *("immunohistochemistry", "retina", "microaneurysms", "cell"),
)
"""scikit-image's images that are no photographs of a scene: pages, drawings, scans, textures, cells, ..."""
GENERATED = 6
"""Images each of noise, of blots, of text and of drawn lines; somewhat more in all than OOD_IMAGES."""


@torch.inference_mode()
def feature_means(captioner: ImageCaptioner, features: FeatureMap) -> Tensor:
    """(B, d) on the CPU: the mean of each image's projected feature map."""
    return captioner.decoder.start(features).features.mean().float().cpu()


def caption_all(captioner: ImageCaptioner, images: Sequence[ImageSource]) -> tuple[list[str], Tensor, Tensor]:
    """The images' captions, the geometric means (n,) of their word probabilities, their feature means (n, d)."""
    captions, means = [], []
    generation_config = captioner.prepare_generation_config(
        {"num_return_sequences": 1, "min_length": max(1, captioner.generation_config.min_length)}
    )
    for features in encoded(captioner, images):
        captions += captioner.caption_features(features, generation_config)
        means.append(feature_means(captioner, features))
    log_probs = [[math.log(word.probability) for word in caption.words] for caption in captions]
    probabilities = torch.tensor([sum(words) / len(words) for words in log_probs]).exp()
    return [caption.text for caption in captions], probabilities, torch.cat(means)


def principal_directions(means: Tensor) -> tuple[Tensor, Tensor]:
    """Feature means of training images (n, d) -> their center (d,) and first principal directions (k, d).

    Fewer images than k have fewer directions; the rest are zero and remove nothing from a distance.
    """
    center, directions = means.mean(0), means.new_zeros(num_directions(means.shape[1]), means.shape[1])
    _, _, axes = torch.linalg.svd(means - center, full_matrices=False)
    directions[: len(axes)] = axes[: len(directions)]
    # Rounded as the checkpoint stores them, so that the parameters are fitted to the distances in use.
    return center.half().float(), directions.half().float()


def fit_confidence(probabilities: Tensor, distances: Tensor, correct: Tensor) -> ConfidenceConfig:
    """Maximum-likelihood parameters from geometric mean probabilities, distances and correctness (0 or 1), all (n,)."""
    tenth_off, ood_threshold = (float(distances.quantile(q)) for q in (TENTH_OFF_QUANTILE, HALVED_QUANTILE))
    ood_temperature = max((ood_threshold - tenth_off) / math.log(9), 1e-3)
    gate = torch.sigmoid((ood_threshold - distances) / ood_temperature)
    line = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        predicted = torch.sigmoid(line[0] + line[1] * probabilities.square()) * gate
        # A little weight decay keeps the parameters finite where the captions can be separated.
        loss = F.binary_cross_entropy(predicted, correct) + 1e-5 * line.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    intercept, slope = line.detach().tolist()
    return ConfidenceConfig(intercept, slope, ood_threshold, ood_temperature)


def reliability(confidences: Tensor, correct: Tensor) -> list[tuple[float, float, int]]:
    """(n,) and (n,) -> mean confidence, share of correct captions and count of each bin that is not empty."""
    bins = (confidences * BINS).long().clamp(max=BINS - 1)
    members = [bins == index for index in range(BINS) if bool((bins == index).any())]
    return [(float(confidences[bin].mean()), float(correct[bin].mean()), int(bin.sum())) for bin in members]


def calibration_error(curve: Sequence[tuple[float, float, int]]) -> float:
    """Expected calibration error (Guo et al. 2017) of a reliability curve."""
    total = sum(count for _, _, count in curve)
    return sum(abs(predicted - observed) * count for predicted, observed, count in curve) / total


def area_under_roc(positive: Tensor, negative: Tensor) -> float:
    """The probability that a score of `positive` is above one of `negative`; a tie counts half."""
    above, below = positive[:, None] > negative, positive[:, None] < negative
    return float(0.5 + 0.5 * (above.float() - below.float()).mean())


def ood_images(folder: Path | None) -> list[ImageSource]:
    """Out-of-distribution images: a folder's, or scikit-image's, noise, blots, pages of text and drawings."""
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
    drawn += [_drawing(random) for _ in range(GENERATED)]
    return [*(_image(name) for name in OOD_IMAGES), *drawn]


def _image(name: str) -> Image.Image:
    import skimage.data

    pixels = np.asarray(getattr(skimage.data, name)())
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (255 * pixels).astype(np.uint8)).convert("RGB")


def _page_of_text(random: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (448, 448), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for top in range(8, 440, 22):
        words = ("".join(map(chr, random.integers(97, 123, random.integers(2, 10)))) for _ in range(9))
        draw.text((10, top), " ".join(words), "black", font)
    return page


def _drawing(random: np.random.Generator) -> Image.Image:
    sheet = Image.new("RGB", (448, 448), "white")
    draw = ImageDraw.Draw(sheet)
    for _ in range(8):
        draw.line([tuple(point) for point in random.integers(0, 448, (4, 2)).tolist()], "black", 3)
        left, top = random.integers(0, 300, 2).tolist()
        width, height = random.integers(30, 140, 2).tolist()
        draw.ellipse((left, top, left + width, top + height), outline="black", width=3)
    return sheet


def calibrate(
    captioner: ImageCaptioner, train: Sequence[Record], validation: Sequence[Record], ood: Sequence[ImageSource]
) -> tuple[Confidence, Calibration, dict[str, float]]:
    """The confidence of a captioner, fitted on all validation images, its cross-fitted calibration metrics, and the
    calibration error on each data set, by its name.

    Raises DataError for fewer than FEWEST validation images, and where no caption is better than the median one.
    """
    if len(validation) < FEWEST:
        raise DataError(
            f"Found {counted(len(validation), 'validation image')} to fit a confidence; expected at least {FEWEST}, "
            "better 100 or more; without it a captioner captions as well."
        )
    hidden_size = captioner.config.hidden_size
    sample = [record.path for record in train[:: max(1, len(train) // TRAINING_SAMPLE)]]
    center, directions = principal_directions(
        torch.cat([feature_means(captioner, features) for features in encoded(captioner, sample)])
    )
    captions, probabilities, means = caption_all(captioner, [record.path for record in validation])
    ciders = torch.tensor(cider_of_records(captions, validation))
    correct, distances = (ciders > ciders.median()).float(), residual(means, center, directions)
    if not correct.any():
        raise DataError(
            f"No caption of the {len(validation)} validation images is better than the median one, so there is nothing "
            "to fit; give more images, or train the captioner until it tells them apart."
        )
    confidences = torch.zeros(len(validation))
    for half, other in (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2)):
        fitted = Confidence(fit_confidence(probabilities[half], distances[half], correct[half]), hidden_size)
        confidences[other] = _confidences(fitted, probabilities[other], distances[other])
    confidence = Confidence(fit_confidence(probabilities, distances, correct), hidden_size)
    confidence.center.data, confidence.directions.data = center, directions
    _, ood_probabilities, ood_means = caption_all(captioner, ood)
    ood_confidences = _confidences(confidence, ood_probabilities, confidence.distance(ood_means))
    errors = {}
    for name in dict.fromkeys(record.data_set for record in validation):
        own = torch.tensor([record.data_set == name for record in validation])
        errors[name] = calibration_error(reliability(confidences[own], correct[own]))
    curve = reliability(confidences, correct)
    calibration = Calibration(
        error=calibration_error(curve),
        auroc_correct=area_under_roc(confidences[correct == 1], confidences[correct == 0]),
        auroc_ood=area_under_roc(confidences, ood_confidences),
        predicted=tuple(round(predicted, 4) for predicted, _, _ in curve),
        observed=tuple(round(observed, 4) for _, observed, _ in curve),
        captions=tuple(count for _, _, count in curve),
        ood_images=len(ood),
    )
    return confidence, calibration, errors


def _confidences(confidence: Confidence, probabilities: Tensor, distances: Tensor) -> Tensor:
    pairs = zip(distances.tolist(), probabilities.log().tolist(), strict=True)
    return torch.tensor([confidence(distance, [log_prob]) for distance, log_prob in pairs])


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("calibrate", __doc__)
    parser.add_argument("--ood", type=Path, metavar="DIR", help="images unlike the training data, in place of the own")
    parser.add_argument("--write", action="store_true", help="store the confidence in the checkpoint")
    options = parser.parse_args(argv)
    return run_command(parser.prog, partial(_run, options))


def _run(options: argparse.Namespace) -> None:
    folder = checkpoint_folder(options.model) if options.write else None
    captioner = load_captioner(options)
    train, validation = (measured_split(options, captioner, split) for split in ("train", "validation"))
    confidence, calibration, errors = calibrate(captioner, train, validation, ood_images(options.ood))
    _print(calibration, errors)
    if folder is not None:
        keep_confidence(captioner, confidence, calibration, folder)


def keep_confidence(captioner: ImageCaptioner, confidence: Confidence, calibration: Calibration, folder: Path) -> None:
    """Make it the captioner's own, and save that into its folder."""
    captioner.confidence = confidence.to(captioner.device)
    captioner.config = dataclasses.replace(captioner.config, confidence=confidence.config)
    captioner.evaluation = dataclasses.replace(captioner.evaluation, calibration=calibration)
    captioner.save_pretrained(folder)


def _print(calibration: Calibration, errors: Mapping[str, float]) -> None:
    print("| confidence | correct captions | captions |\n|---|---|---|")
    curve = zip(calibration.predicted, calibration.observed, calibration.captions, strict=True)
    for predicted, observed, count in curve:
        print(f"| {predicted:.2f} | {observed:.2f} | {count} |")
    each = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    print(f"\nexpected calibration error: {calibration.error:.3f}" + (f" ({each})" if len(errors) > 1 else ""))
    print(f"area under the ROC curve, correct captions against others: {calibration.auroc_correct:.3f}")
    print(f"area under the ROC curve, validation against OOD images: {calibration.auroc_ood:.3f}")


if __name__ == "__main__":
    sys.exit(main())
