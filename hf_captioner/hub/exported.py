"""A captioner's export to ONNX, and captioners that ONNX Runtime computes from one."""

import hashlib
import json
import logging
import os
import statistics
import tempfile
import time
from abc import abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from hf_captioner.atomic import write_text
from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import CheckpointError
from hf_captioner.hub.checkpoint import CARD, CONFIG, EVALUATION, TOKENIZER, WEIGHTS, read_description
from hf_captioner.hub.packaged import data_path
from hf_captioner.hub.pretrained import PreTrainedCaptioner
from hf_captioner.hub.weights import read_weights, stored_digest, stored_shapes
from hf_captioner.images import read_pixels
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.encoder import Encoder
from hf_captioner.onnx.cache import find_export, keep_export, keep_seconds, kept_seconds
from hf_captioner.onnx.export import FOLDER, PACKAGES, export_graphs
from hf_captioner.onnx.readme import readme
from hf_captioner.onnx.runtime import OnnxRuntime

TRAINED_ONLY = ("dropout", "confidence")
"""Fields of a config that say nothing of what the graphs compute."""
NETWORK = "encoder.network."
"""What the names of the encoder's weights begin with."""
ROUNDS = 3
"""Captions of each backend that are timed, after one to warm up."""

logger = logging.getLogger(__name__)


class ExportedCaptioner(PreTrainedCaptioner):
    """What `from_pretrained` loads where ONNX Runtime computes the captions; its weights are those of any other."""

    encoder: Encoder
    decoder: Decoder
    _runtime: OnnxRuntime | None = None
    _exported_weights: frozenset[Any] = frozenset()
    """Which weights the runtime computes with."""

    @property
    def runtime(self) -> OnnxRuntime | None:
        """What computes captions in place of `encoder` and `decoder`, from an export; None once a weight was changed,
        moved to another device or is asked for in another dtype. Changes through a tensor's `.data` are not noticed."""
        runtime = self._runtime
        if runtime is None or runtime.dtype != self.dtype or self._weights_now() != self._exported_weights:
            return None
        return runtime

    @property
    def backend(self) -> str:
        """Which library computes captions, `torch` or `onnx`."""
        return "torch" if self.runtime is None else "onnx"

    def _weights_now(self) -> frozenset[Any]:
        return frozenset((parameter.data_ptr(), parameter._version) for parameter in self.parameters())

    def _compute_by(self, runtime: OnnxRuntime) -> None:
        self._runtime, self.dtype, self._exported_weights = runtime, runtime.dtype, self._weights_now()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runtime": self.runtime, "_exported_weights": frozenset()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._runtime is not None:
            self._compute_by(self._runtime)
        elif self.dtype == torch.int8:
            self.dtype = torch.float32

    @abstractmethod
    def caption_pixels(self, pixels: Tensor) -> Sequence[Any]:
        """The captions of preprocessed pixels (B, 3, S, S), as the checkpoint generates them."""

    # -- loading -------------------------------------------------------------------------------------------------------

    @classmethod
    def _load(cls, folder: Path, dtype: torch.dtype, backend: str) -> Self:
        if backend == "torch" or (backend == "auto" and not find_spec("onnxruntime")):
            return super()._load(folder, dtype, backend)
        state = read_weights(folder / WEIGHTS, stored_shapes(folder / WEIGHTS))
        key, required = export_key(read_description(folder).config, stored_digest(state.items())), backend == "onnx"
        runtime = _opened(folder / FOLDER, key, dtype, required=required)
        seconds = kept_seconds(key)
        if not required and (runtime is None or (seconds is not None and not _is_quicker(seconds))):
            return super()._load(folder, dtype, backend)
        if runtime is not None and (required or seconds is not None):
            captioner = cls._unbuilt(folder, state, runtime)
        else:
            captioner = super()._load(folder, dtype, "torch")
            runtime = runtime or captioner._exported_here(key, dtype)
            seconds = captioner._measured(runtime)
        if required or (seconds is not None and _is_quicker(seconds)):
            captioner._compute_by(runtime)
        return captioner

    def take_quickest_backend(self) -> None:
        """Compute captions by ONNX Runtime from now on, where it can and is the quicker: for a process that captions
        for long, since the captioner is exported and both are measured where this machine has not done it yet."""
        here = self.device.type == "cpu" and self.dtype == torch.float32 and self.runtime is None
        if not here or not all(map(find_spec, PACKAGES)):
            return
        key = export_key(self.config, stored_digest(self.named_parameters()))
        folder = find_export(None, key, self.dtype)
        runtime = self._exported_here(key, self.dtype) if folder is None else OnnxRuntime(folder, key, self.dtype)
        if _is_quicker(kept_seconds(key) or self._measured(runtime)):
            self._compute_by(runtime)

    def _exported_here(self, key: str, dtype: torch.dtype) -> OnnxRuntime:
        """The runtime of an export that is made now and kept on this machine."""
        logger.info("The captioner is exported to ONNX, once on this machine; that takes about half a minute.")
        return OnnxRuntime(keep_export(key, lambda place: self._export_graphs(place, key, [dtype])), key, dtype)

    def _measured(self, runtime: OnnxRuntime) -> dict[str, float]:
        """The seconds of each backend, kept for the next time where the runtime computes in the same dtype."""
        seconds = self.seconds_by_backend(runtime)
        if runtime.dtype == torch.float32:
            keep_seconds(runtime.key, seconds)
        return seconds

    @classmethod
    def _unbuilt(cls, folder: Path, state: dict[str, Tensor], runtime: OnnxRuntime) -> Self:
        """A folder's captioner without what only PyTorch needs, with these weights."""
        of_network = {
            name.removeprefix(NETWORK): list(t.shape) for name, t in state.items() if name.startswith(NETWORK)
        }
        with torch.device("meta"):
            encoder = Encoder.unbuilt(read_description(folder).config, of_network, runtime.feature_map)
        captioner = cls._without_weights(folder, unbuilt_encoder=encoder)
        captioner._fill(state)
        return captioner

    def seconds_by_backend(self, runtime: OnnxRuntime) -> dict[str, float]:
        """How long a caption of one image takes here, from its pixels on, by PyTorch and by this runtime."""
        before = self._runtime, self.dtype, self._exported_weights
        pixels, seconds = calibration_pixels(self.config)[:1], dict[str, list[float]](torch=[], onnx=[])
        for _ in range(1 + ROUNDS):
            for backend, spent in seconds.items():
                self._runtime = None
                if backend == "onnx":
                    self._compute_by(runtime)
                began = time.perf_counter()
                self.caption_pixels(pixels)
                spent.append(time.perf_counter() - began)
        self._runtime, self.dtype, self._exported_weights = before
        return {backend: statistics.median(spent[1:]) for backend, spent in seconds.items()}

    # -- exporting -----------------------------------------------------------------------------------------------------

    def export_onnx(self, folder: str | os.PathLike[str]) -> None:
        """Write the captioner as ONNX graphs, in float32 and in int8, into the folder `onnx` of this one, as the Hub's
        repositories have them, with a README.md; and beside it config.json, generation_config.json and tokenizer.json
        where they are not there.

        The graphs hold the weights rounded to float16, as a checkpoint does. Raises MissingExtraError, and
        CheckpointError for a folder that holds another captioner or cannot be written; its files are then as they were.
        """
        place = Path(folder)
        texts = {name: text for name, text in self.description.texts().items() if name != EVALUATION}
        texts[TOKENIZER] = self.tokenizer.to_json()
        for name in (CONFIG, TOKENIZER):
            if (place / name).is_file() and (place / name).read_text(encoding="utf-8") != texts[name]:
                raise CheckpointError(f"{place} holds another captioner, for its {name} differs; give a new folder.")
        key = export_key(self.config, stored_digest(self.named_parameters()))
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".exporting-", dir=place) as temporary:
                self._export_graphs(Path(temporary), key, [torch.float32, torch.int8])
                (Path(temporary) / CARD).write_text(readme(Path(temporary)), encoding="utf-8")
                (place / FOLDER).mkdir(exist_ok=True)
                for path in Path(temporary).iterdir():
                    os.replace(path, place / FOLDER / path.name)
            for name, text in texts.items():
                if not (place / name).exists():
                    write_text(place / name, text)
        except OSError as error:
            raise CheckpointError(f"{place} cannot be written ({error}).") from error

    def _export_graphs(self, folder: Path, key: str, dtypes: Sequence[torch.dtype]) -> None:
        images = calibration_pixels(self.config)
        export_graphs(self.encoder, self.decoder, folder, key=key, dtypes=dtypes, images=images)


def export_key(config: CaptionerConfig, digest: str) -> str:
    """What tells a captioner's graphs from every other's: its weights, by their digest, and how they are computed."""
    computed = {name: value for name, value in config.to_dict().items() if name not in TRAINED_ONLY}
    return hashlib.sha256(json.dumps([computed, digest], sort_keys=True).encode()).hexdigest()


def calibration_pixels(config: CaptionerConfig) -> Tensor:
    """The page's examples, (B, 3, S, S), each as it is and mirrored: what the ranges of int8 are measured on."""
    paths = sorted((data_path("space") / "examples").glob("*.jpg"))
    pixels = torch.stack([read_pixels(path, config) for path in paths])
    return torch.cat([pixels, pixels.flip(3)])


def _opened(own: Path, key: str, dtype: torch.dtype, *, required: bool) -> OnnxRuntime | None:
    """The runtime of a checkpoint's own export or of the one that is kept here; None where there is none.

    Raises CheckpointError where one is required and the checkpoint's own does not fit; else that is only told.
    """
    folder = find_export(own, key, dtype)
    if folder is None:
        return None
    try:
        return OnnxRuntime(folder, key, dtype)
    except CheckpointError as error:
        if required:
            raise
        logger.warning("%s PyTorch computes the captions.", error)
        return None


def _is_quicker(seconds: dict[str, float]) -> bool:
    return seconds["onnx"] < seconds["torch"]
