"""A captioner's graphs, computed by ONNX Runtime."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_captioner.errors import CheckpointError, MissingExtraError, require_extra
from hf_captioner.modeling.decoder import DecoderOutput, DecoderState, ProjectedFeatures
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.onnx.export import FORMAT, METADATA, file_names

logger = logging.getLogger(__name__)


class OnnxRuntime:
    """What an `Encoder` and a `Decoder` compute for captions, from an export of their weights.

    It computes on the processor, with as many threads as PyTorch had when it was opened, and may be asked by several
    threads at once.
    """

    def __init__(self, folder: Path, key: str, dtype: torch.dtype) -> None:
        """Open the graphs in a folder. key: the captioner's, as `export_graphs` was given it.

        Raises MissingExtraError without ONNX Runtime, and CheckpointError for graphs that are missing, broken, of
        another format or another captioner's.
        """
        require_extra("The onnx backend", "onnx", "onnxruntime")
        self.folder, self.key, self.dtype = folder, key, dtype
        self._encoder, self._start, self._step = (_open(folder / name, key) for name in file_names(dtype))
        self.feature_map: tuple[int, int, int] = tuple(_about(self._encoder)["feature_map"])
        """(C, h, w)"""

    def __reduce__(self) -> Any:
        return _reopened, (self.folder, self.key, self.dtype)

    def encode(self, pixels: Tensor) -> FeatureMap:
        """Preprocessed pixels (B, 3, S, S) -> their feature map."""
        (values,) = self._encoder.run(None, {"pixel_values": _array(pixels)})
        return FeatureMap(torch.from_numpy(values), *self.feature_map[1:])

    def start(self, features: FeatureMap) -> DecoderState:
        """As `Decoder.start`."""
        if features.mask is not None:
            raise ValueError("ONNX Runtime takes no mask; load the captioner with backend='torch'.")
        keys, values, *recurrent = map(
            torch.from_numpy, self._start.run(None, {"feature_map": _array(features.values)})
        )
        nothing = torch.empty(len(values), 0, dtype=torch.long)
        return DecoderState(
            ProjectedFeatures(keys, values, None), tuple(recurrent), torch.zeros_like(recurrent[0]), nothing
        )

    def step(self, words: Tensor, state: DecoderState) -> DecoderOutput:
        """As `Decoder.step`."""
        features, images = state.features, len(state.features.values)
        read = torch.cat([state.prefix, words[:, None]], 1)
        carried = [part.unflatten(0, (images, -1)) for part in (read, state.context, *state.recurrent)]
        fed = [carried[0], features.keys, features.values, *carried[1:]]
        names = [each.name for each in self._step.get_inputs()]
        outputs = self._step.run(None, dict(zip(names, map(_array, fed), strict=True)))
        log_probs, attention, context, *recurrent = (torch.from_numpy(part).flatten(0, 1) for part in outputs)
        return DecoderOutput(log_probs, attention, DecoderState(features, tuple(recurrent), context, read))


def _reopened(folder: Path, key: str, dtype: torch.dtype) -> OnnxRuntime | None:
    """The runtime of a captioner that was pickled; None on a machine that does not have its export."""
    try:
        return OnnxRuntime(folder, key, dtype)
    except (CheckpointError, MissingExtraError) as error:
        logger.warning("%s PyTorch computes the captions.", error)
        return None


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy())


def _open(path: Path, key: str) -> Any:
    """A session of ONNX Runtime's. Raises CheckpointError."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    again = "export it again: hf-captioner export DIR"
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is no whole export of a captioner: {path.name} is missing; {again}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the search between wants the cores
    options.log_severity_level = 4  # what is wrong is raised, too
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        about = _about(session)
        found, version = about["key"], about["format"]
    except (raised.Fail, raised.InvalidGraph, raised.InvalidProtobuf, raised.NotImplemented, raised.InvalidArgument,
            raised.RuntimeException, raised.NoSuchFile, ValueError, KeyError, TypeError) as error:  # fmt: skip
        reason = str(error).strip().rpartition("\n")[2]
        raise CheckpointError(
            f"{path} is no graph of a captioner that ONNX Runtime {onnxruntime.__version__} reads ({reason}); {again}."
        ) from error
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}; this hf-captioner reads format {FORMAT}: {again}.")
    if found != key:
        raise CheckpointError(f"{path} is the export of another captioner, or of earlier weights; {again}.")
    return session


def _about(session: Any) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    return about
