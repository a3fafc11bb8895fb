"""Records -> batches: pixels or cached features, and each image's captions as padded ids.

Every random choice is drawn from (seed, epoch, image, copy), so a resumed run sees what it would have seen.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import ConfigError
from hf_captioner.images import open_image, preprocess
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.data import Record
from hf_captioner.training.feature_cache import FeatureCache
from hf_captioner.training.recipe import Recipe, Stage

MAX_WORDS = 50
"""A training caption is cut here, so that one stray paragraph cannot exhaust the memory."""

SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Batch:
    """A step's B images and their R = B * K captions, in the images' order."""

    images: Tensor
    """(B, 3, S, S) pixels or (B, N, C) features."""
    words: Tensor
    """(R, T) start token and words, padded."""
    targets: Tensor
    """(R, T) words and end token, padded."""
    lengths: Tensor
    """(R,) lengths without padding; on the CPU, as packing wants them."""
    indices: Tensor
    """(B,) indices of the records."""

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.images.to(device), self.words.to(device), self.targets.to(device), self.lengths, self.indices)


Sample = tuple[int, Tensor, list[list[int]]]


class CaptionDataset(Dataset[Sample]):
    """(epoch, i, copy) -> i, image i as pixels or cached features, and `stage.captions` of its captions as ids."""

    def __init__(
        self,
        records: Sequence[Record],
        tokenizer: CaptionTokenizer,
        config: CaptionerConfig,
        stage: Stage,
        seed: int,
        features: FeatureCache | None,
    ) -> None:
        self.records, self.config, self.stage, self.seed, self.features = records, config, stage, seed, features
        self.ids = [[tokenizer.encode(caption)[:MAX_WORDS] for caption in record.captions] for record in records]
        self.names_a_side = [any(SIDES.search(caption) for caption in record.captions) for record in records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int, int]) -> Sample:
        epoch, index, copy = key
        draw = random.Random(f"{self.seed} {epoch} {self.records[index].path.name} {copy}")
        captions = self.ids[index]
        repeats = -(-self.stage.captions // len(captions))
        chosen = draw.sample(captions * repeats, self.stage.captions)
        if self.features is not None:
            return index, self.features[index].float(), chosen
        image = open_image(self.records[index].path, min_side=2 * self.config.image_size)
        if self.stage.augment:
            image = augment(image, draw, may_flip=not self.names_a_side[index])
        return index, preprocess(image, self.config), chosen


def augment(image: Image.Image, draw: random.Random, *, may_flip: bool) -> Image.Image:
    """A random crop of 60 to 100 % of the area, mild colour jitter, and a random flip if allowed."""
    width, height = image.size
    area, ratio = draw.uniform(0.6, 1.0), draw.uniform(0.85, 1.18)
    w, h = min(1.0, (area * ratio) ** 0.5), min(1.0, (area / ratio) ** 0.5)
    left, top = draw.uniform(0, 1 - w) * width, draw.uniform(0, 1 - h) * height
    box = (left, top, left + w * width, top + h * height)
    image = image.resize(image.size, Image.Resampling.BILINEAR, box=box)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(draw.uniform(0.8, 1.2))
    if may_flip and draw.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


class EpochOrder:
    """An epoch's batches as lists of (epoch, i, copy), shuffled by (seed, epoch); each process has its share of each.

    An image of weight w comes in floor(w) copies, and in one more for a share of the images that is drawn anew in each
    epoch, so that those of one weight come w times on average: together round(w * images) times.
    """

    def __init__(
        self, weights: Sequence[float], batch_size: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        """weights: one for each image, as `Record.weight`. Raises ConfigError where no image would come."""
        self.batch_size, self.seed = batch_size, seed
        self._groups: dict[float, list[int]] = {}
        for index, weight in enumerate(weights):
            self._groups.setdefault(weight, []).append(index)
        self.samples = sum(round(weight * len(group)) for weight, group in self._groups.items())
        if not self.samples:
            raise ConfigError(
                f"With the weights {', '.join(f'{weight:g}' for weight in self._groups)} an epoch shows none of the "
                f"{len(weights)} training images; raise them."
            )
        self.process, self.processes = process, processes
        self.epoch, self.first = 0, 0
        """The next epoch and its first step."""

    def __len__(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest >= self.processes)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        draw, order = random.Random(f"{self.seed} order {self.epoch}"), list[tuple[int, int]]()
        for weight, group in self._groups.items():
            copies, rest = divmod(round(weight * len(group)), len(group))
            order += [(index, copy) for copy in range(copies) for index in group]
            order += [(index, copies) for index in draw.sample(group, rest)]
        draw.shuffle(order)
        for step in range(self.first, len(self)):
            chunk = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, index, copy) for index, copy in chunk[self.process :: self.processes]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the images and pad their captions."""
    ended = [[*ids, CaptionTokenizer.end_id] for _, _, chosen in samples for ids in chosen]
    images = torch.stack([image for _, image, _ in samples])
    return Batch(images, *padded(ended), torch.tensor([index for index, _, _ in samples]))


def padded(captions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Captions, each with its end token unless it was cut -> `words`, `targets` and `lengths` of a Batch."""
    start, pad = CaptionTokenizer.start_id, CaptionTokenizer.pad_id
    width = max(map(len, captions))
    targets = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in captions])
    words = torch.cat([torch.full_like(targets[:, :1], start), targets[:, :-1]], 1)
    return words, targets, torch.tensor([len(ids) for ids in captions])


def loader(dataset: CaptionDataset, order: EpochOrder, recipe: Recipe) -> DataLoader[Batch]:
    """Batches in `order`, read by `recipe.workers` processes."""
    return DataLoader(dataset, batch_sampler=order, collate_fn=collate, num_workers=recipe.workers)  # type: ignore[arg-type]
