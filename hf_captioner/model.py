"""The captioner: photographs in, captions out; loaded and saved strictly."""

import dataclasses
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from hf_captioner.caption import Caption, Word
from hf_captioner.config import CaptionerConfig, ConfigError, SearchConfig
from hf_captioner.decoder import Decoder
from hf_captioner.encoder import Encoder, Grid
from hf_captioner.hub import CHECKPOINT_FILES, CheckpointError, bundled_checkpoint, push_folder, render_card, resolve
from hf_captioner.images import ImageError, ImageSource, open_image, preprocess
from hf_captioner.search import Hypothesis, search
from hf_captioner.tokenizer import CaptionTokenizer, TokenizerError

READERS = 2
"""Threads that read and resize photographs while the model works."""
STORED = {"F16", "BF16", "F32"}
"""Number formats that a checkpoint may hold; it is saved as F16 and computed as float32."""

Result = Caption | list[Caption]
"""One caption, or where `num_captions` is more than 1 a list of them, best first."""


class ImageCaptioner(nn.Module, PyTorchModelHubMixin, library_name="hf-captioner", pipeline_tag="image-to-text"):
    """An encoder, a decoder and a tokenizer: a photograph in, a sentence with its attention out."""

    def __init__(self, config: CaptionerConfig, tokenizer: CaptionTokenizer) -> None:
        """A captioner with random weights, ready for use (in evaluation mode)."""
        super().__init__()
        if len(tokenizer) != config.vocabulary_size:
            raise ConfigError(
                f"CaptionerConfig.vocabulary_size is {config.vocabulary_size}; "
                f"expected the tokenizer's {len(tokenizer)}."
            )
        self.config, self.tokenizer = config, tokenizer
        self.weights_license: str | None = None
        """Text of the weights' licence, saved beside them as LICENSE."""
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, self.encoder.channels)
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
        """Caption one photograph, or a list of them in the same order.

        images: a path, a file's bytes, a Pillow image or an (H, W, 3) uint8 array; or a list or tuple of these.
        search: fields of SearchConfig; what is not given is as the checkpoint says (`config.search`).
        Returns a Caption (with num_captions > 1 a list of Captions, best first), or for a list a list of these.
        Raises ImageError for a picture that cannot be read, ConfigError for a search that makes no sense.
        """
        several = isinstance(images, list | tuple)
        given: Sequence[ImageSource] = images if several else [images]  # type: ignore[assignment, list-item]
        stream = self.stream(given, batch_size=batch_size, **search)
        results = []
        for result in tqdm(stream, total=len(given), unit="photograph", disable=not progress, dynamic_ncols=True):
            if isinstance(result, ImageError):
                raise result
            results.append(result)
        return results if several else results[0]

    def stream(
        self, images: Iterable[ImageSource], *, batch_size: int = 32, **search: Any
    ) -> Iterator[Result | ImageError]:
        """Caption any iterable lazily, in its order, at most two batches in memory.

        A picture that cannot be read comes out as an ImageError in its place, and the others go on.
        """
        settings = self._settings(search)
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1.")
        return self._stream(iter(images), batch_size, settings)

    def _stream(
        self, images: Iterator[ImageSource], batch_size: int, settings: SearchConfig
    ) -> Iterator[Result | ImageError]:
        with ThreadPoolExecutor(READERS, "read") as readers:
            ahead: list[Future[Tensor | ImageError]] = []
            while chunk := list(islice(images, batch_size)):
                reading = [readers.submit(self._read, image) for image in chunk]
                yield from self._caption_batch([future.result() for future in ahead], settings)
                ahead = reading
            yield from self._caption_batch([future.result() for future in ahead], settings)

    def _read(self, image: ImageSource) -> Tensor | ImageError:
        try:
            return preprocess(open_image(image), self.config)
        except ImageError as error:
            return error

    def _caption_batch(
        self, batch: Sequence[Tensor | ImageError], settings: SearchConfig
    ) -> Iterator[Result | ImageError]:
        good = [item for item in batch if isinstance(item, Tensor)]
        captions = iter(self.caption_grid(self.encode(torch.stack(good)), settings) if good else ())
        for item in batch:
            if isinstance(item, ImageError):
                yield item
            else:
                found = next(captions)
                yield found if settings.num_captions > 1 else found[0]

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Grid:
        """Preprocessed pixels (B, 3, S, S) -> their grid."""
        device = self.decoder.embedding.weight.device
        grid: Grid = self.encoder(pixels.to(device, memory_format=torch.channels_last))
        return grid

    @torch.inference_mode()
    def caption_grid(self, grid: Grid, settings: SearchConfig) -> list[list[Caption]]:
        """The captions of each of a grid's photographs, best first."""
        words = self.tokenizer
        avoided = {i for text in settings.avoid for i in words.encode(text)}
        found = search(
            self.decoder,
            torch.full((len(grid.values),), words.start_id, device=grid.values.device),
            self.decoder.start(grid),
            settings,
            end_id=words.end_id,
            banned=sorted(avoided | {words.pad_id, words.start_id, words.unknown_id}),
            begin_with=words.encode(settings.begin_with),
        )
        return [[self._caption(best, grid) for best in hypotheses] for hypotheses in found]

    def _caption(self, hypothesis: Hypothesis, grid: Grid) -> Caption:
        word, maps = self.tokenizer.word, hypothesis.attention.cpu().numpy().reshape(-1, grid.height, grid.width)
        words = tuple(
            Word(word(i), math.exp(log_prob), attention, tuple((word(j), p) for j, p in likeliest))
            for i, log_prob, attention, likeliest in zip(
                hypothesis.ids, hypothesis.log_probs, maps, hypothesis.alternatives, strict=True
            )
        )
        return Caption(self.tokenizer.decode(hypothesis.ids), words, hypothesis.score, hypothesis.finished)

    def _settings(self, search: dict[str, Any]) -> SearchConfig:
        known = [field.name for field in dataclasses.fields(SearchConfig)]
        unknown = sorted(set(search) - set(known))
        if unknown:
            raise TypeError(
                f"caption() does not know {', '.join(unknown)}; a search has the fields {', '.join(known)}."
            )
        if "beams" not in search and not search.get("sample", self.config.search.sample):
            search["beams"] = max(self.config.search.beams, search.get("num_captions", 1))
        settings = dataclasses.replace(self.config.search, **search)
        unheard = [
            word
            for word in self.tokenizer.split(settings.begin_with)
            if self.tokenizer.unknown_id in self.tokenizer.encode(word)
        ]
        if unheard:
            raise ConfigError(
                f"begin_with has {', '.join(map(repr, unheard))}, not among the model's words; use others."
            )
        return settings

    # -- load, save, push ---------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_folder: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load the bundled checkpoint (None), a folder's, or a Hub repository's; in float32, ready for use.

        Strict: config, words and weights must fit each other exactly. Nothing is unpickled. Raises CheckpointError.
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
            raise CheckpointError(
                f"{folder} lacks {', '.join(absent)}; expected a captioner's {', '.join(CHECKPOINT_FILES)}."
            )
        try:
            config = CaptionerConfig.from_json((folder / "config.json").read_text(encoding="utf-8"))
            tokenizer = CaptionTokenizer.load(folder / "tokenizer.json")
            with torch.device("meta"):
                model = cls(config, tokenizer)
        except (ConfigError, TokenizerError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{folder} is no captioner of this library: {error}") from error
        model._load_weights(folder / "model.safetensors")
        if (folder / "LICENSE").is_file():
            model.weights_license = (folder / "LICENSE").read_text(encoding="utf-8")
        return model.to(memory_format=torch.channels_last).eval()

    def _load_weights(self, path: Path) -> None:
        """Fill this model, built on the meta device; the file's header is checked before any tensor is read."""
        wanted = {name: list(parameter.shape) for name, parameter in self.named_parameters()}
        try:
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_slice(name) for name in file.keys()}
                _check_header(path, wanted, {n: (s.get_shape(), s.get_dtype()) for n, s in found.items()})
                state = {name: file.get_tensor(name).float() for name in wanted}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is no whole safetensors file: {error}; download or save it again."
            ) from error
        broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
        if broken:
            raise CheckpointError(f"{path} holds numbers that are not finite in {', '.join(broken[:5])}.")
        if self.config.tie_embeddings:
            state["decoder.output.weight"] = state["decoder.embedding.weight"]
        self.load_state_dict(state, assign=True)
        if self.config.tie_embeddings:
            self.decoder.output.weight = self.decoder.embedding.weight

    def save_pretrained(self, save_directory: str | Path, *, repo_id: str = "your-name/your-captioner") -> None:  # type: ignore[override]
        """Write config.json, tokenizer.json, model.safetensors (float16), the card README.md and LICENSE.

        A README.md that is there already is kept. Each file is written whole or not at all.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in self.named_parameters()}
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            new = Path(temporary)
            save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
            self.tokenizer.save(new / "tokenizer.json")
            (new / "config.json").write_text(self.config.to_json(), encoding="utf-8")
            if self.weights_license is not None:
                (new / "LICENSE").write_text(self.weights_license, encoding="utf-8")
            if not (folder / "README.md").exists():
                (new / "README.md").write_text(render_card(self.config, repo_id), encoding="utf-8")
            for file in sorted(new.iterdir()):
                os.replace(file, folder / file.name)

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
        """Push config, words, weights, card and licence to the Hub in one commit; return the commit's URL.

        A card that is there already is left as it is unless `overwrite_card`. Raises CheckpointError.
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
                keep=() if overwrite_card else ("README.md",),
            )


def _check_header(path: Path, wanted: dict[str, list[int]], found: dict[str, tuple[list[int], str]]) -> None:
    """Raise CheckpointError unless the file holds exactly the tensors wanted, in their shapes, as floats."""
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not part of this captioner" for name in found if name not in wanted]
    for name, (shape, kind) in found.items():
        if name in wanted and list(shape) != wanted[name]:
            problems.append(f"{name} has shape {list(shape)}, expected {wanted[name]}")
        elif kind not in STORED:
            problems.append(f"{name} is {kind}, expected one of {', '.join(sorted(STORED))}")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path} does not fit config.json: {'; '.join(problems[:3])}{more}.")
