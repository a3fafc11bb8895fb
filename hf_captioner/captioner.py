"""The captioner: images in, captions out."""

import contextlib
import dataclasses
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Unpack, overload

import torch
from torch import Tensor
from tqdm import tqdm

from hf_captioner.bulk.readers import NamedImage, Source, iter_images
from hf_captioner.caption import Caption, Word
from hf_captioner.config import CaptionerConfig, GenerationConfig, GenerationOptions
from hf_captioner.errors import ConfigError, ImageError
from hf_captioner.hub.pretrained import PreTrainedCaptioner
from hf_captioner.images import ImageSource, read_pixels
from hf_captioner.modeling.confidence import Confidence
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.encoder import Encoder, FeatureMap
from hf_captioner.modeling.generation import Hypothesis, generate
from hf_captioner.modeling.tokenizer import CaptionTokenizer

READER_THREADS = 2
"""Threads that read and resize images while the model works."""

ENCODER_MICROBATCH = 8
"""Encoder micro-batch on CPU; 8 is a quarter faster than 32 (measured with 1 MB of L2 a core)."""


class ImageCaptioner(PreTrainedCaptioner):
    """An encoder, a decoder and a tokenizer: an image in, a sentence with its attention out.

    It can be pickled, copied, moved to a device, and asked by several threads at once. A caption depends neither on
    what else is in its batch nor on the thread that asked.
    """

    def __init__(
        self, config: CaptionerConfig, tokenizer: CaptionTokenizer, generation_config: GenerationConfig | None = None
    ) -> None:
        """A captioner with random weights, in evaluation mode. Raises ConfigError where the parts do not fit."""
        super().__init__(config, tokenizer, generation_config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, self.encoder.channels)
        self.confidence = Confidence(config.confidence, config.hidden_size) if config.confidence else None
        self.eval()

    def tie_weights(self) -> None:
        self.decoder.tie_weights()

    @overload  # a string is a sequence of strings, too
    def caption(  # type: ignore[overload-overlap]
        self,
        images: ImageSource,
        *,
        batch_size: int = 32,
        progress: bool = False,
        **generation: Unpack[GenerationOptions],
    ) -> Caption: ...

    @overload
    def caption(
        self,
        images: Sequence[ImageSource],
        *,
        batch_size: int = 32,
        progress: bool = False,
        **generation: Unpack[GenerationOptions],
    ) -> list[Caption]: ...

    def caption(
        self, images: Any, *, batch_size: int = 32, progress: bool = False, **generation: Unpack[GenerationOptions]
    ) -> Caption | list[Caption]:
        """Caption one image, or a sequence of them in the same order.

        images: a path, bytes, a binary file object, a Pillow image or an array (H, W, 3) or (H, W) of uint8.
        progress: a bar on stderr. generation: fields of GenerationConfig; the others are as `generation_config` says.
        With num_return_sequences > 1 all captions of an image are in the `candidates` of its best one.
        Raises ImageError for an image that cannot be read, ConfigError for settings that make no sense, TypeError for a
        keyword that GenerationConfig does not have.
        """
        several = isinstance(images, Sequence) and not isinstance(images, str | bytes)
        given = images if several else [images]
        captions = []
        with contextlib.closing(
            self._stream(_named(given), batch_size, self.prepare_generation_config(generation))
        ) as results:
            for result in tqdm(results, total=len(given), unit="image", disable=not progress, dynamic_ncols=True):
                if isinstance(result, ImageError):
                    raise result
                captions.append(result)
        return captions if several else captions[0]

    def stream(
        self, images: Source | Iterable[Any], *, batch_size: int = 32, **generation: Unpack[GenerationOptions]
    ) -> Generator[Caption | ImageError, None, None]:
        """Caption whatever `iter_images` reads, in its order, reading at most two batches ahead of what was taken.

        images: a source that holds many images, such as a folder, a tar file or a data set; or any iterable of images.
        An image that cannot be read comes out as an ImageError in its place, and the others go on.
        Raises at once, before anything is read, what `caption` raises for its keywords.
        """
        return self._stream(iter_images(images), batch_size, self.prepare_generation_config(generation))

    def _stream(
        self, images: Iterator[NamedImage], batch_size: int, generation_config: GenerationConfig
    ) -> Generator[Caption | ImageError, None, None]:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1.")
        return self._batches(images, batch_size, generation_config)

    def _batches(
        self, images: Iterator[NamedImage], batch_size: int, generation_config: GenerationConfig
    ) -> Generator[Caption | ImageError, None, None]:
        with ThreadPoolExecutor(READER_THREADS, "read") as readers:
            read_ahead: list[tuple[NamedImage, Future[Tensor | ImageError]]] = []
            while batch := list(islice(images, batch_size)):
                reading = [(named, readers.submit(self._read, named)) for named in batch]
                if self.device.type == "cpu":
                    wait([future for _, future in reading])  # the encoder wants every core: side by side both lose
                yield from self._caption_batch(read_ahead, generation_config)
                read_ahead = reading
            yield from self._caption_batch(read_ahead, generation_config)

    def _read(self, named: NamedImage) -> Tensor | ImageError:
        if isinstance(named.image, ImageError):
            return named.image
        try:
            return read_pixels(named.image, self.config)
        except ImageError as error:
            return error

    def _caption_batch(
        self, batch: Sequence[tuple[NamedImage, Future[Tensor | ImageError]]], generation_config: GenerationConfig
    ) -> Iterator[Caption | ImageError]:
        pixels = [result for _, future in batch if isinstance(result := future.result(), Tensor)]
        captions = iter(self.caption_features(self.encode(_stacked(pixels)), generation_config) if pixels else ())
        for named, future in batch:
            result = future.result()
            if isinstance(result, ImageError):
                yield result
            elif not isinstance(named.image, ImageError):
                yield _with_image(next(captions), named.image)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> FeatureMap:
        """Preprocessed pixels (B, 3, S, S) -> their feature map."""
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        parts = pixels.split(ENCODER_MICROBATCH if self.device.type == "cpu" else len(pixels))
        with self._precision():
            maps: list[FeatureMap] = [self.encoder(part) for part in parts]
        return FeatureMap(torch.cat([each.values for each in maps]), maps[0].height, maps[0].width)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @torch.inference_mode()
    def caption_features(self, features: FeatureMap, generation_config: GenerationConfig) -> list[Caption]:
        """The best caption of each of a feature map's images, the others among its `candidates`."""
        tokenizer = self.tokenizer
        special = {tokenizer.pad_id, tokenizer.start_id, tokenizer.unknown_id}
        with self._precision():
            start = self.decoder.start(features)
            generated = generate(
                self.decoder,
                torch.full((len(features.values),), tokenizer.start_id, device=features.values.device),
                start,
                generation_config,
                end_id=tokenizer.end_id,
                banned=sorted(special.union(*map(tokenizer.encode, generation_config.bad_words))),
                prefix=tokenizer.encode(generation_config.prefix),
            )
        distances: list[float | None] = [None] * len(generated)
        if self.confidence is not None:
            distances = self.confidence.distance(start.features.mean().float()).tolist()
        captions = []
        for hypotheses, distance in zip(generated, distances, strict=True):
            best, *others = (self._caption(hypothesis, features, distance) for hypothesis in hypotheses)
            captions.append(dataclasses.replace(best, others=tuple(others)))
        return captions

    def _caption(self, hypothesis: Hypothesis, features: FeatureMap, distance: float | None) -> Caption:
        word = self.tokenizer.word
        maps = hypothesis.attention.cpu().numpy().reshape(-1, features.height, features.width)
        words = tuple(
            Word(word(i), math.exp(log_prob), attention, tuple((word(j), p) for j, p in alternatives))
            for i, log_prob, attention, alternatives in zip(
                hypothesis.ids, hypothesis.log_probs, maps, hypothesis.alternatives, strict=True
            )
        )
        confidence = None
        if self.confidence is not None and distance is not None:
            confidence = self.confidence(distance, hypothesis.log_probs)
        return Caption(self.tokenizer.decode(hypothesis.ids), words, hypothesis.score, hypothesis.finished, confidence)

    def prepare_generation_config(self, overrides: Mapping[str, Any]) -> GenerationConfig:
        """`generation_config` with these fields changed; beams enough for the captions asked for where none are given.

        Raises TypeError for a field that there is not, ConfigError for values that make no sense.
        """
        fields = [field.name for field in dataclasses.fields(GenerationConfig)]
        unknown = sorted(overrides.keys() - set(fields))
        if unknown:
            raise TypeError(f"GenerationConfig has no {', '.join(unknown)}; it has the fields {', '.join(fields)}.")
        changes = dict(overrides)
        count = changes.get("num_return_sequences")
        if "num_beams" not in changes and isinstance(count, int) and count > self.generation_config.num_beams:
            changes["num_beams"] = count
        prepared = dataclasses.replace(self.generation_config, **changes)
        unknown = [word for word in prepared.prefix.split() if not self.tokenizer.knows(word)]
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise ConfigError(f"The model doesn't know {names} of the prefix. Try a more common word.")
        length = len(self.tokenizer.encode(prepared.prefix))
        if length > prepared.max_length:
            raise ConfigError(f"prefix has {length} words; expected at most max_length ({prepared.max_length}).")
        for word in prepared.bad_words:
            if len(self.tokenizer.encode(word)) > 1:
                raise ConfigError(f"bad_words has {word!r}, which is more than one word; give each word by itself.")
        return prepared


def _named(images: Iterable[ImageSource]) -> Iterator[NamedImage]:
    return (NamedImage(f"#{index}", image) for index, image in enumerate(images))


def _stacked(pixels: Sequence[Tensor]) -> Tensor:
    """B of (3, S, S) -> (B, 3, S, S), channels last as `preprocess` gives them."""
    return torch.stack([one.movedim(0, -1) for one in pixels]).movedim(-1, 1)


def _with_image(caption: Caption, image: ImageSource) -> Caption:
    """The caption and its candidates, with a reference to the image."""
    others = tuple(dataclasses.replace(other, image=image) for other in caption.others)
    return dataclasses.replace(caption, image=image, others=others)
