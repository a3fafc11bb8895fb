"""The frozen encoder's features, computed once: memory-mapped float16 safetensors that are never stale."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from hf_captioner.atomic import write_file
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import CaptionerConfig
from hf_captioner.images import ImageSource, read_pixels
from hf_captioner.modeling.encoder import Encoder, FeatureMap
from hf_captioner.training.checkpointing import weights_digest

SHARD = 1000
"""Images in one file of the cache."""


class FeatureCache:
    """features[i] -> (N, C) float16 of image i, read from disk through the page cache."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = [safe_open(shard, framework="pt").__enter__() for shard in shards]

    def __getitem__(self, index: int) -> Tensor:
        return self._shards[index // SHARD].get_slice("features")[index % SHARD]


def cached_features(encoder: Encoder, config: CaptionerConfig, images: Sequence[Path], folder: Path) -> FeatureCache:
    """The features of the images, in their order; computed where the cache lacks them.

    A shard's file name is a digest of everything it depends on: the encoder's kind, weights and precision, the
    preprocessing, and each image's path, size and modification time. A change anywhere gives another name, so a
    stale shard is never read; a shard is written whole or not at all.
    """
    network = _encoder_digest(encoder, config)
    shards = []
    for start in tqdm(range(0, len(images), SHARD), desc="features", unit="shard", dynamic_ncols=True):
        chunk = images[start : start + SHARD]
        path = folder / f"{_digest(network, *(_fingerprint(image) for image in chunk))}.safetensors"
        if not path.exists():
            write_file(path, partial(save_file, {"features": _features(encoder, config, chunk)}))
        shards.append(path)
    return FeatureCache(shards)


def encoded(captioner: ImageCaptioner, images: Sequence[ImageSource], batch: int = 50) -> Iterator[FeatureMap]:
    """The images' feature maps as the captioner sees them, a batch at a time, with a bar on stderr."""
    for start in tqdm(range(0, len(images), batch), desc="encode", unit="batch", dynamic_ncols=True):
        pixels = [read_pixels(image, captioner.config) for image in images[start : start + batch]]
        yield captioner.encode(torch.stack(pixels))


@torch.inference_mode()
def _features(encoder: Encoder, config: CaptionerConfig, images: Sequence[Path], batch: int = 25) -> Tensor:
    device = next(encoder.parameters()).device
    features = []
    for start in range(0, len(images), batch):
        pixels = torch.stack([read_pixels(path, config) for path in images[start : start + batch]])
        pixels = pixels.to(device, memory_format=torch.channels_last)
        features.append(encoder(pixels).values.float().cpu())
    return torch.cat(features).half()


def _encoder_digest(encoder: Encoder, config: CaptionerConfig) -> str:
    device = next(encoder.parameters()).device.type
    precision = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "float32"
    settings = [precision, config.encoder, config.encoder_layer, config.image_size, config.image_mean, config.image_std]
    return _digest(json.dumps(settings), weights_digest(encoder))


def _fingerprint(image: Path) -> str:
    found = image.stat()
    return f"{image.resolve()}:{found.st_size}:{found.st_mtime_ns}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
