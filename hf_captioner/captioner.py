"""The captioner: images in, captions out; loaded and saved strictly."""

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from tqdm import tqdm

from hf_captioner.bulk.readers import NamedImage, Source, is_collection, iter_images
from hf_captioner.caption import Caption, Word
from hf_captioner.config import CaptionerConfig, GenerationConfig
from hf_captioner.errors import CheckpointError, ConfigError, ImageError, TokenizerError
from hf_captioner.hub.card import PLACEHOLDER_REPO, is_generated, render_card
from hf_captioner.hub.checkpoint import CARD, CHECKPOINT_FILES, as_float16, read_config, read_weights, write_together
from hf_captioner.hub.download import resolve
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.hub.push import push_folder
from hf_captioner.images import ImageSource, read_pixels
from hf_captioner.modeling.confidence import Confidence
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.encoder import Encoder, FeatureMap
from hf_captioner.modeling.generation import Hypothesis, generate
from hf_captioner.modeling.tokenizer import CaptionTokenizer

READER_THREADS = 2
"""Threads that read and resize images while the model works."""

ENCODER_MICROBATCH = 8
"""Images that go through the encoder together on a processor: of more, its caches cannot hold what the layers
say to each other (a quarter faster than 32 at once, measured with 1 MB of second-level cache a core)."""

Result = Caption | list[Caption]
"""One caption, or where `num_return_sequences` is more than 1 a list of them, best first."""


class ImageCaptioner(nn.Module, PyTorchModelHubMixin, library_name="hf-captioner", pipeline_tag="image-to-text"):
    """An encoder, a decoder and a tokenizer: an image in, a sentence with its attention out.

    The mixin's three public methods are replaced by strict ones: its own drop what JSON cannot hold, accept weights
    that do not fit, and print on stdout.
    """

    def __init__(self, config: CaptionerConfig, tokenizer: CaptionTokenizer) -> None:
        """A captioner with random weights, in evaluation mode. Raises ConfigError where the two do not fit."""
        super().__init__()
        if len(tokenizer) != config.vocabulary_size:
            found = config.vocabulary_size
            raise ConfigError(f"CaptionerConfig.vocabulary_size is {found}; expected the tokenizer's {len(tokenizer)}.")
        self.config, self.tokenizer = config, tokenizer
        self.weights_license: str | None = None
        """Text of the weights' own licence, saved beside them as LICENSE."""
        self.card: str | None = None
        """The model card that a person wrote for these weights; None where it is to be rendered."""
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, self.encoder.channels)
        self.confidence = Confidence(config.calibration, config.hidden_size) if config.calibration else None
        self.in_bfloat16 = False
        """Compute captions in bfloat16, quicker where the processor has it; a few captions come out otherwise."""
        self.eval()

    # -- captions -----------------------------------------------------------------------------------------------------

    def caption(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        batch_size: int = 32,
        progress: bool = False,
        **search: Any,
    ) -> Any:
        """Caption one image, or a list of them in the same order.

        images: a path, a file's bytes, a Pillow image or an (H, W, 3) uint8 array; or a list or tuple of these.
        progress: a bar on stderr. search: fields of GenerationConfig; what is not given is as `config.search` says.
        Returns a Caption, or with num_return_sequences > 1 a list of Captions, best first; for a list, a list of these.
        Raises ImageError for an image that cannot be read, ConfigError for a search that makes no sense, TypeError
        for a keyword that GenerationConfig does not have.
        """
        several = isinstance(images, list | tuple)
        given: Sequence[ImageSource] = images if several else [images]  # type: ignore[assignment, list-item]
        found = []
        with contextlib.closing(self.stream(given, batch_size=batch_size, **search)) as results:
            for result in tqdm(results, total=len(given), unit="image", disable=not progress, dynamic_ncols=True):
                if isinstance(result, ImageError):
                    raise result
                found.append(result)
        return found if several else found[0]

    def stream(
        self, images: Source | Iterable[ImageSource | NamedImage], *, batch_size: int = 32, **search: Any
    ) -> Generator[Result | ImageError, None, None]:
        """Caption any iterable, in its order, reading at most two batches ahead of what was taken.

        images: images, or what `images` gives; or one place that holds many, such as a folder or a tar file.
        An image that cannot be read comes out as an ImageError in its place, and the others go on.
        Raises at once, before anything is read, what `caption` raises for its keywords.
        """
        if isinstance(images, str | os.PathLike) and is_collection(images):
            images = iter_images(images)
        if isinstance(images, str | bytes | os.PathLike):
            raise TypeError("stream() takes an iterable of images; for a single one use caption().")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1.")
        return self._stream(iter(images), batch_size, self.prepare_generation_config(search))

    def _stream(
        self, images: Iterator[ImageSource | NamedImage], batch_size: int, settings: GenerationConfig
    ) -> Generator[Result | ImageError, None, None]:
        with ThreadPoolExecutor(READER_THREADS, "read") as readers:
            ahead: list[Future[Tensor | ImageError]] = []
            while chunk := list(islice(images, batch_size)):
                reading = [readers.submit(self._read, image) for image in chunk]
                if self._device.type == "cpu":
                    wait(reading)  # the encoder wants every core: side by side both lose
                yield from self._caption_batch([future.result() for future in ahead], settings)
                ahead = reading
            yield from self._caption_batch([future.result() for future in ahead], settings)

    def _read(self, given: ImageSource | NamedImage) -> Tensor | ImageError:
        image = given.image if isinstance(given, NamedImage) else given
        if isinstance(image, ImageError):
            return image
        try:
            return read_pixels(image, self.config)
        except ImageError as error:
            return error

    def _caption_batch(
        self, batch: Sequence[Tensor | ImageError], settings: GenerationConfig
    ) -> Iterator[Result | ImageError]:
        good = [item for item in batch if isinstance(item, Tensor)]
        captions = iter(self.caption_features(self.encode(_stacked(good)), settings) if good else ())
        for item in batch:
            if isinstance(item, ImageError):
                yield item
            else:
                found = next(captions)
                yield found if settings.num_return_sequences > 1 else found[0]

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> FeatureMap:
        """Preprocessed pixels (B, 3, S, S) -> their grid."""
        pixels = pixels.to(self._device, memory_format=torch.channels_last)
        parts = pixels.split(ENCODER_MICROBATCH if self._device.type == "cpu" else len(pixels))
        with self._precision():
            grids: list[FeatureMap] = [self.encoder(part) for part in parts]
        return FeatureMap(torch.cat([grid.values for grid in grids]), grids[0].height, grids[0].width)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16) if self.in_bfloat16 else contextlib.nullcontext()

    @property
    def _device(self) -> torch.device:
        return self.decoder.embedding.weight.device

    @torch.inference_mode()
    def caption_features(self, grid: FeatureMap, settings: GenerationConfig) -> list[list[Caption]]:
        """The captions of each of a grid's images, best first."""
        words = self.tokenizer
        avoided = {i for word in settings.bad_words for i in words.encode(word)}
        with self._precision():
            start = self.decoder.start(grid)
            found = generate(
                self.decoder,
                torch.full((len(grid.values),), words.start_id, device=grid.values.device),
                start,
                settings,
                end_id=words.end_id,
                banned=sorted(avoided | {words.pad_id, words.start_id, words.unknown_id}),
                prefix=words.encode(settings.prefix),
            )
        distances: list[float | None] = [None] * len(found)
        if self.confidence is not None:
            distances = self.confidence.distance(start.seen.mean().float()).tolist()
        return [
            [self._caption(best, grid, distance) for best in hypotheses]
            for hypotheses, distance in zip(found, distances, strict=True)
        ]

    def _caption(self, hypothesis: Hypothesis, grid: FeatureMap, distance: float | None) -> Caption:
        word, maps = self.tokenizer.word, hypothesis.attention.cpu().numpy().reshape(-1, grid.height, grid.width)
        words = tuple(
            Word(word(i), math.exp(log_prob), attention, tuple((word(j), p) for j, p in likeliest))
            for i, log_prob, attention, likeliest in zip(
                hypothesis.ids, hypothesis.log_probs, maps, hypothesis.alternatives, strict=True
            )
        )
        sure = None
        if self.confidence is not None and distance is not None:
            sure = self.confidence(distance, hypothesis.log_probs)
        return Caption(self.tokenizer.decode(hypothesis.ids), words, hypothesis.score, hypothesis.finished, sure)

    def prepare_generation_config(self, search: dict[str, Any]) -> GenerationConfig:
        """The checkpoint's own search with these fields changed; beams enough for the captions where none are given."""
        known = [field.name for field in dataclasses.fields(GenerationConfig)]
        unknown = sorted(set(search) - set(known))
        if unknown:
            raise TypeError(f"A search has no {', '.join(unknown)}; it has the fields {', '.join(known)}.")
        own, several = self.config.search, search.get("num_return_sequences")
        if "num_beams" not in search and isinstance(several, int) and several > own.num_beams:
            search = {**search, "num_beams": several}
        settings = dataclasses.replace(own, **search)
        unheard = [word for word in settings.prefix.split() if not self._knows(word)]
        if unheard:
            raise ConfigError(f"prefix has {', '.join(map(repr, unheard))}, not among the model's words; use others.")
        begin = len(self.tokenizer.encode(settings.prefix))
        if begin > settings.max_length:
            raise ConfigError(f"prefix has {begin} words; expected at most max_length ({settings.max_length}).")
        for word in settings.bad_words:
            if len(self.tokenizer.encode(word)) > 1:
                raise ConfigError(f"bad_words has {word!r}, which is more than one word; give each word by itself.")
        return settings

    def _knows(self, word: str) -> bool:
        ids = self.tokenizer.encode(word)
        return bool(ids) and self.tokenizer.unknown_id not in ids

    # -- load, save, push ---------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_folder: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load the bundled checkpoint (None), a folder's, or a Hub repository's; in float32, in evaluation mode.

        Strict: config, words and weights must fit each other exactly; nothing is unpickled, and no backbone's weights
        are downloaded. Raises CheckpointError, whose sentence says what was found, expected, and can be done.
        """
        folder = bundled_checkpoint()
        if name_or_folder is not None:
            folder = resolve(
                name_or_folder,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        absent = [name for name in CHECKPOINT_FILES if not (folder / name).is_file()]
        if absent:
            raise CheckpointError(f"{folder} has no {', '.join(absent)}; expected {', '.join(CHECKPOINT_FILES)} there.")
        config = read_config(folder)
        try:
            tokenizer = CaptionTokenizer.load(folder / "tokenizer.json")
            with torch.device("meta"):
                model = cls(config, tokenizer)
        except (ConfigError, TokenizerError) as error:
            raise CheckpointError(f"{folder} is not a whole captioner: {error}") from error
        model._load_weights(folder / "model.safetensors")
        model.weights_license, card = _text(folder / "LICENSE"), _text(folder / CARD)
        model.card = None if card is None or is_generated(card) else card
        return model.to(memory_format=torch.channels_last).eval()

    def _load_weights(self, path: Path) -> None:
        """Fill this model, built on the meta device."""
        state = read_weights(path, {name: list(parameter.shape) for name, parameter in self.named_parameters()})
        if self.config.tie_embeddings:
            state["decoder.output.weight"] = state["decoder.embedding.weight"]
        self.load_state_dict(state, assign=True)
        if self.config.tie_embeddings:
            self.decoder.output.weight = self.decoder.embedding.weight

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], *, repo_id: str = PLACEHOLDER_REPO
    ) -> None:
        """Write config.json, tokenizer.json, model.safetensors (float16), the card README.md and, if known, LICENSE.

        A README.md there that a person wrote or edited is kept. repo_id: the Hub id that the card names.
        Raises CheckpointError for weights that float16 cannot hold and for a folder that cannot be written; the files
        that were there are then as they were.
        """
        folder = Path(save_directory)
        weights = as_float16(dict(self.named_parameters()))
        texts = {"config.json": self.config.to_json(), "LICENSE": self.weights_license}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            existing = _text(folder / CARD)
            if existing is None or is_generated(existing):
                texts[CARD] = self.card or render_card(self.config, repo_id, licence=self.weights_license)
            files = {name: text.encode() for name, text in texts.items() if text is not None}
            files["model.safetensors"] = safetensors.torch.save(weights, {"format": "pt"})
            writers = {name: lambda path, data=data: path.write_bytes(data) for name, data in files.items()}
            write_together(folder, {**writers, "tokenizer.json": self.tokenizer.save})
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be written ({error}); what was there is as it was.") from error

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Push captioner",
        create_pr: bool = False,
        overwrite_card: bool = False,
    ) -> str:
        """Push what save_pretrained writes to the Hub in one commit; return its URL, or the pull request's.

        A card on the Hub that a person wrote or edited stays as it is, unless `overwrite_card`. Raises CheckpointError.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id)
            return push_folder(
                Path(folder),
                repo_id,
                private=private,
                token=token,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
                overwrite_card=overwrite_card,
            )


def _stacked(pixels: Sequence[Tensor]) -> Tensor:
    """B of (3, S, S) -> (B, 3, S, S), channels last as `preprocess` gives them."""
    return torch.stack([one.movedim(0, -1) for one in pixels]).movedim(-1, 1)


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
