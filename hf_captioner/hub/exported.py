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
from safetensors.torch import save_file
from torch import Tensor

from hf_captioner.atomic import write_text
from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import CheckpointError, require_extra
from hf_captioner.hub.checkpoint import CARD, CONFIG, EVALUATION, GENERATION, TOKENIZER, WEIGHTS, read_description
from hf_captioner.hub.packaged import example_images
from hf_captioner.hub.pretrained import PreTrainedCaptioner
from hf_captioner.hub.weights import check_weights, read_weights, stored_digest, stored_shapes
from hf_captioner.images import read_pixels
from hf_captioner.modeling.confidence import Confidence
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.device import Way, has_bfloat16, quickest
from hf_captioner.modeling.encoder import Encoder
from hf_captioner.modeling.watched import WatchedWeights
from hf_captioner.onnx.cache import find_export, keep_export, keep_seconds, kept_seconds
from hf_captioner.onnx.export import FOLDER, PACKAGES, export_graphs
from hf_captioner.onnx.readme import readme
from hf_captioner.onnx.runtime import OnnxRuntime

TRAINED_ONLY = ("dropout", "confidence")
"""Fields of a config that say nothing of what the graphs compute."""
NETWORK = "encoder.network."
"""What the names of the encoder's weights begin with."""
ONNX = Way("onnx", torch.float32)
ROUNDS = 3
"""How often each way to compute is timed but for the first time."""

logger = logging.getLogger(__name__)


class ExportedCaptioner(PreTrainedCaptioner):
    """What `from_pretrained` loads where ONNX Runtime computes the captions; its weights are those of any other."""

    encoder: Encoder
    decoder: Decoder
    confidence: Confidence | None
    _runtime: OnnxRuntime | None = None
    _exported: WatchedWeights | None = None
    """The weights that the runtime computes with."""
    _own_export: Path | None = None
    """Where the checkpoint that it was loaded from may have brought its own export."""

    @property
    def runtime(self) -> OnnxRuntime | None:
        """What computes captions in place of `encoder` and `decoder`, from an export; None once a weight was changed,
        moved to another device or is asked for in another dtype. Changes through a tensor's `.data` are not noticed."""
        runtime, weights = self._runtime, self._exported
        fits = runtime is not None and weights is not None and runtime.dtype == self.dtype and weights.unchanged()
        return runtime if fits else None

    @property
    def backend(self) -> str:
        """Which library computes captions, `torch` or `onnx`."""
        return "torch" if self.runtime is None else "onnx"

    def _compute_by(self, runtime: OnnxRuntime | None, dtype: torch.dtype) -> None:
        """From now on by this runtime, or by PyTorch."""
        self._runtime, self.dtype = runtime, dtype
        self._exported = None if runtime is None else WatchedWeights(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runtime": self.runtime, "_exported": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        without = torch.float32 if self.dtype == torch.int8 else self.dtype
        self._compute_by(self._runtime, without if self._runtime is None else self.dtype)

    @abstractmethod
    def caption_pixels(self, pixels: Tensor) -> Sequence[Any]:
        """The captions of preprocessed pixels (B, 3, S, S), as the checkpoint generates them."""

    # -- loading -------------------------------------------------------------------------------------------------------

    @classmethod
    def _load(cls, folder: Path, dtype: torch.dtype | None, backend: str) -> Self:
        if backend == "torch" and dtype is not None:
            return super()._load(folder, dtype, backend)
        state = read_weights(folder / WEIGHTS, stored_shapes(folder / WEIGHTS))
        key = export_key(read_description(folder).config, stored_digest(state.items()))
        way, own = quickest(kept_seconds(key), backend, dtype), folder / FOLDER
        runtime = _opened(own, key, way.dtype, required=backend == "onnx") if way.backend == "onnx" else None
        if runtime is not None:
            captioner = cls._unbuilt(folder, runtime, state)
        else:
            captioner = cls._without_weights(folder)
            check_weights(folder / WEIGHTS, captioner._shapes())
        captioner._fill(state)
        if runtime is None:
            captioner.to(memory_format=torch.channels_last)
        captioner._own_export = own
        if runtime is None and backend == "onnx":
            runtime = captioner._exported_here(key, way.dtype)
            if way == ONNX:
                captioner._time(key)
        captioner._compute_by(runtime, way.dtype)
        return captioner

    def take_quickest(self) -> None:
        """Compute captions from now on in the way that is the quickest on this processor: by ONNX Runtime, or by
        PyTorch in float32 or bfloat16. For a process that captions for long, since the captioner is exported and each
        way is timed where this machine has not done it yet; `from_pretrained` then knows, too. What cannot be exported
        or kept is told, and computed as before."""
        if self.device.type != "cpu":
            return
        key, can_export = export_key(self.config, stored_digest(self.named_parameters())), all(map(find_spec, PACKAGES))
        try:
            if can_export and _opened(self._own_export, key, ONNX.dtype) is None:
                self._exported_here(key, ONNX.dtype)
            kept = kept_seconds(key)
            if kept is None or (can_export and ONNX not in kept):
                self._time(key)
        except CheckpointError as error:
            logger.warning("%s The captions are computed as before.", error)
            return
        way = quickest(kept_seconds(key), "auto", None)
        self._compute_by(_opened(self._own_export, key, way.dtype) if way.backend == "onnx" else None, way.dtype)

    def _exported_here(self, key: str, dtype: torch.dtype) -> OnnxRuntime:
        """The runtime of an export that is made now and kept on this machine."""
        logger.info("The captioner is exported to ONNX, once on this machine; that takes about half a minute.")
        return OnnxRuntime(keep_export(key, lambda place: self._export_graphs(place, key, [dtype])), key, dtype)

    def _time(self, key: str) -> None:
        """Time a caption of one image, from its pixels on, in each way that may be taken here, and keep that."""
        before, dtype = self.runtime, self.dtype
        ways: dict[Way, OnnxRuntime | None] = {Way("torch", torch.float32): None}
        if has_bfloat16():
            ways[Way("torch", torch.bfloat16)] = None
        if find_spec("onnxruntime") and (runtime := _opened(self._own_export, key, ONNX.dtype)) is not None:
            ways[ONNX] = runtime
        size = self.config.image_size
        pixels, seconds = torch.zeros(1, 3, size, size), {way: list[float]() for way in ways}
        for _ in range(1 + ROUNDS):
            for way, runtime in ways.items():
                self._compute_by(runtime, way.dtype)
                self.caption_pixels(pixels)  # what is made once for a way
                began = time.perf_counter()
                self.caption_pixels(pixels)
                seconds[way].append(time.perf_counter() - began)
        self._compute_by(before, dtype)
        keep_seconds(key, {way: statistics.median(spent) for way, spent in seconds.items()})

    @classmethod
    def _unbuilt(cls, folder: Path, runtime: OnnxRuntime, state: dict[str, Tensor]) -> Self:
        """A folder's captioner without what only PyTorch needs, for weights such as these."""
        of_network = {
            name.removeprefix(NETWORK): list(t.shape) for name, t in state.items() if name.startswith(NETWORK)
        }
        with torch.device("meta"):
            encoder = Encoder.unbuilt(read_description(folder).config, of_network, runtime.feature_map)
        return cls._without_weights(folder, unbuilt_encoder=encoder)

    # -- exporting -----------------------------------------------------------------------------------------------------

    def export_onnx(self, folder: str | os.PathLike[str]) -> None:
        """Write the captioner as ONNX graphs, in float32 and in int8, into the folder `onnx` of this one, as the Hub's
        repositories have them, with a README.md; and beside it config.json, generation_config.json and tokenizer.json
        where they are not there.

        The graphs hold the weights rounded to float16, as a checkpoint does. Raises MissingExtraError, and
        CheckpointError for a folder that holds another captioner or cannot be written; its files are then as they were.
        """
        require_extra("An export to ONNX", "onnx", *PACKAGES)
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

    def export_web(self, folder: Path) -> None:
        """Write the captioner into a new folder as the page in the browser reads it: `config.json`,
        `generation_config.json`, `tokenizer.json`, int8 graphs that compute the same on every device in `onnx`, and the
        tensors of its confidence. Raises MissingExtraError, CheckpointError and, where it cannot be written, OSError.
        """
        key = export_key(self.config, stored_digest(self.named_parameters()))
        (folder / FOLDER).mkdir(parents=True)
        export_graphs(self.encoder, self.decoder, folder / FOLDER, key=key, dtypes=[torch.int8], images=None)
        texts = self.description.texts() | {TOKENIZER: self.tokenizer.to_json()}
        for name in (CONFIG, GENERATION, TOKENIZER):
            (folder / name).write_text(texts[name], encoding="utf-8")
        if self.confidence is not None:
            tensors = {name: tensor.detach().cpu() for name, tensor in self.confidence.named_parameters()}
            save_file(tensors, folder / "confidence.safetensors")

    def take_export(self, folder: Path, dtype: torch.dtype) -> None:
        """Compute captions from now on by ONNX Runtime, from the graphs in a folder. Raises CheckpointError for those
        of another captioner."""
        key = export_key(self.config, stored_digest(self.named_parameters()))
        self._compute_by(OnnxRuntime(folder, key, dtype), dtype)

    def _export_graphs(self, folder: Path, key: str, dtypes: Sequence[torch.dtype]) -> None:
        images = calibration_pixels(self.config) if torch.int8 in dtypes else None
        export_graphs(self.encoder, self.decoder, folder, key=key, dtypes=dtypes, images=images)


def export_key(config: CaptionerConfig, digest: str) -> str:
    """What tells a captioner's graphs from every other's: its weights, by their digest, and how they are computed."""
    computed = {name: value for name, value in config.to_dict().items() if name not in TRAINED_ONLY}
    return hashlib.sha256(json.dumps([computed, digest], sort_keys=True).encode()).hexdigest()


def calibration_pixels(config: CaptionerConfig) -> Tensor:
    """The page's examples, (B, 3, S, S), each as it is and mirrored: what the ranges of int8 are measured on."""
    paths = example_images()
    if not paths:
        raise CheckpointError("There are none of the page's examples, on which int8 is calibrated; export in float32.")
    pixels = torch.stack([read_pixels(path, config) for path in paths])
    return torch.cat([pixels, pixels.flip(3)])


def _opened(own: Path | None, key: str, dtype: torch.dtype, *, required: bool = False) -> OnnxRuntime | None:
    """The runtime of a checkpoint's own export or of the one that is kept here; None where there is none that fits.

    Raises CheckpointError where one is required and the checkpoint's own does not fit; else that is only told, and of
    the one that is kept here not even that, since it can be made again.
    """
    folder = find_export(own, key, dtype)
    if folder is None:
        return None
    try:
        return OnnxRuntime(folder, key, dtype)
    except CheckpointError as error:
        if folder == own and required:
            raise
        if folder == own:
            logger.warning("%s Until then it is not used.", error)
        return None
