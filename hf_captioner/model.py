"""The model: pixels to a feature map, and a feature map to captions."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from hf_captioner.caption import Caption, Word
from hf_captioner.config import CaptionerConfig, GenerationConfig
from hf_captioner.hub.exported import ExportedCaptioner
from hf_captioner.modeling.confidence import Confidence
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.device import resolve_dtype
from hf_captioner.modeling.encoder import Encoder, FeatureMap
from hf_captioner.modeling.generation import Hypothesis, StoppingCriteria, generate
from hf_captioner.modeling.generation_settings import check_memory, check_words, images_at_once, override
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.modeling.watched import WatchedWeights

ENCODER_MICROBATCH = 8
"""Encoder micro-batch on CPU; 8 is a quarter faster than 32 (measured with 1 MB of L2 a core)."""


@dataclasses.dataclass(frozen=True)
class _Cast:
    """A copy of a captioner's encoder in a dtype, and the weights that it is a copy of."""

    dtype: torch.dtype
    weights: WatchedWeights
    encoder: Encoder


class CaptionModel(ExportedCaptioner):
    """An encoder, a decoder and a tokenizer. Captions do not depend on `train()`, which is the training's."""

    def __init__(
        self,
        config: CaptionerConfig,
        tokenizer: CaptionTokenizer,
        generation_config: GenerationConfig | None = None,
        *,
        unbuilt_encoder: Encoder | None = None,
    ) -> None:
        """A captioner with random weights, in evaluation mode. unbuilt_encoder: in place of one that is built now.

        Raises ConfigError where the parts do not fit, and for generation settings that would take too much memory."""
        super().__init__(config, tokenizer, generation_config)
        self._cast: _Cast | None = None
        self.encoder = unbuilt_encoder or Encoder(config)
        self.decoder = Decoder(config, self.encoder.channels)
        self.confidence = Confidence(config.confidence, config.hidden_size) if config.confidence else None
        check_memory(config, self.generation_config, self._cells)
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_cast": None}

    @property
    def _cells(self) -> int:
        """N, of the feature map."""
        return self.encoder.height * self.encoder.width

    def tie_weights(self) -> None:
        self.decoder.tie_weights()

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> FeatureMap:
        """Preprocessed pixels (B, 3, S, S) -> their feature map."""
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        parts = pixels.split(ENCODER_MICROBATCH if self.device.type == "cpu" else len(pixels))
        runtime = self.runtime
        encode = self._encoder_in_dtype() if runtime is None else runtime.encode
        maps: list[FeatureMap] = [encode(part) for part in parts]
        return FeatureMap(torch.cat([each.values for each in maps]), maps[0].height, maps[0].width)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What moves (`to`, `cuda`) moves the weights; what casts (`half`, `bfloat16`, `float`, `to(torch.bfloat16)`)
        sets `dtype` and leaves them in float32, as `from_pretrained(dtype=...)` does. Raises ConfigError."""
        casts = fn(torch.zeros(1)).dtype != torch.float32
        asked = fn(torch.zeros(1, dtype=torch.float32 if self.dtype == torch.int8 else self.dtype))
        if casts or self.dtype != torch.int8:
            self.dtype = resolve_dtype(asked.dtype) or self.dtype
        return super()._apply((lambda tensor: tensor.to(asked.device)) if casts else fn, recurse)

    def _encoder_in_dtype(self) -> Encoder:
        """The encoder; a copy of it in `dtype` where that is not float32, until a weight changes. The decoder, in which
        errors would add up from word to word, and which takes a tenth of the time, stays in float32."""
        if self.dtype in (torch.float32, torch.int8):
            return self.encoder
        kept = self._cast
        if kept is None or kept.dtype != self.dtype or not kept.weights.unchanged():
            self.encoder.build()
            encoder = copy.deepcopy(self.encoder).to(self.dtype).to(memory_format=torch.channels_last)
            kept = self._cast = _Cast(self.dtype, WatchedWeights(self.encoder), encoder)
        return kept.encoder

    def caption_pixels(self, pixels: Tensor) -> list[Caption]:
        """The captions of preprocessed pixels (B, 3, S, S), as `generation_config` says."""
        return self.caption_features(self.encode(pixels), self.generation_config)

    def caption_features(
        self,
        features: FeatureMap,
        generation_config: GenerationConfig,
        *,
        stopping_criteria: StoppingCriteria | None = None,
    ) -> list[Caption]:
        """The best caption of each of a feature map's images, the others among its `candidates`.

        As many images are searched at once as fit into MAX_SEARCH_BYTES of `modeling/generation_settings.py`. Raises
        what `caption` raises for its settings and criteria.
        """
        return list(self._in_parts(features, generation_config, stopping_criteria))

    def _in_parts(
        self, features: FeatureMap, generation_config: GenerationConfig, stopping_criteria: StoppingCriteria | None
    ) -> Iterator[Caption]:
        check_words(self.tokenizer, generation_config)
        cells = features.values.shape[1]
        check_memory(self.config, generation_config, cells)
        for part in features.split(images_at_once(self.config, generation_config, cells)):
            yield from self._search(part, generation_config, stopping_criteria)

    @torch.inference_mode()
    def _search(
        self, features: FeatureMap, generation_config: GenerationConfig, stopping_criteria: StoppingCriteria | None
    ) -> list[Caption]:
        tokenizer = self.tokenizer
        special = {tokenizer.pad_id, tokenizer.start_id, tokenizer.unknown_id}
        decoder = self.runtime or self.decoder
        start = decoder.start(features)
        generated = generate(
            decoder,
            torch.full((len(features.values),), tokenizer.start_id, device=features.values.device),
            start,
            generation_config,
            end_id=tokenizer.end_id,
            banned=sorted(special.union(*map(tokenizer.encode, generation_config.bad_words))),
            prefix=tokenizer.encode(generation_config.prefix),
            stopping_criteria=stopping_criteria,
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

        Raises TypeError for a field that there is not, ConfigError for values that make no sense or take too much
        memory.
        """
        prepared = override(self.generation_config, overrides)
        check_words(self.tokenizer, prepared)
        check_memory(self.config, prepared, self._cells)
        return prepared
