"""A captioner's ONNX graphs as files, whole or not at all."""

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hf_captioner.errors import CheckpointError, require_extra
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.encoder import Encoder
from hf_captioner.onnx.graphs import ENCODER, GRAPHS, Graph, graphs_of
from hf_captioner.onnx.quantization import quantize, quiet, store_weights_in_int8

FOLDER = "onnx"
"""Where a checkpoint has its export, as the Hub's repositories do."""
OPSET = 20
FORMAT = 1
"""Of what the graphs compute; a runtime of this package reads its own only."""
METADATA = "hf_captioner"
"""The key under which a graph says which captioner's it is, as JSON."""
QUANTIZED = "_quantized"
"""What follows a graph's name in its int8 form."""
Module = TypeVar("Module", bound=torch.nn.Module)
TOLERANCE = 1e-4
"""How far an output of a float32 graph may be from PyTorch's, as a share of the largest number in it."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def file_names(dtype: torch.dtype) -> list[str]:
    """The files of a captioner's graphs in float32 or int8."""
    suffix = QUANTIZED if dtype == torch.int8 else ""
    return [f"{name}{suffix}.onnx" for name in GRAPHS]


EXPORT_FILES = [f"{FOLDER}/{name}" for dtype in (torch.float32, torch.int8) for name in file_names(dtype)]
"""All that an export may bring to a checkpoint."""


def export_graphs(
    encoder: Encoder, decoder: Decoder, folder: Path, *, key: str, dtypes: Sequence[torch.dtype], images: Tensor | None
) -> None:
    """Write the graphs of these weights, rounded to float16 as a checkpoint stores them, into a new or empty folder.

    key: what tells the captioner from every other one. images (B, 3, S, S): preprocessed, to calibrate int8 on; without
    them the graphs of int8 have their weights in it and compute in float32.
    Raises MissingExtraError, and CheckpointError for a graph that does not compute what PyTorch does.
    """
    require_extra("An export to ONNX", "onnx", *PACKAGES)
    encoder.build()
    graphs, about = graphs_of(_rounded(encoder), _rounded(decoder)), _about(encoder, key)
    with tempfile.TemporaryDirectory() as temporary:
        for name, graph in graphs.items():
            path = Path(temporary) / f"{name}.onnx"
            _write_graph(path, name, graph, about)
            if torch.int8 in dtypes:
                out = folder / f"{name}{QUANTIZED}.onnx"
                if images is None:
                    store_weights_in_int8(path, out)
                else:
                    quantize(path, out, images if name == ENCODER else None)
            if torch.float32 in dtypes:
                shutil.move(path, folder / path.name)


def _about(encoder: Encoder, key: str) -> dict[str, Any]:
    """What a graph says of itself."""
    return {"format": FORMAT, "key": key, "feature_map": [encoder.channels, encoder.height, encoder.width]}


def _write_graph(path: Path, name: str, graph: Graph, about: dict[str, Any]) -> None:
    """Raises CheckpointError for a graph that does not compute what PyTorch does."""
    import onnx

    proto = _traced(name, graph)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(about)})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    _check_equal(name, path, graph)


def _rounded(module: Module) -> Module:
    """A copy in evaluation mode, on the processor, with its weights rounded to float16."""
    rounded = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half())
    return rounded


def _traced(name: str, graph: Graph) -> Any:
    """The graph as an `onnx.ModelProto`. Raises CheckpointError where PyTorch cannot export it."""
    dimensions = {name: torch.export.Dim(name) for axes in graph.axes.values() for name in axes.values()}
    shapes = tuple({axis: dimensions[name] for axis, name in graph.axes[key].items()} for key in graph.inputs)
    with (
        warnings.catch_warnings(),
        torch.enable_grad(),
        quiet(),
    ):  # without inference's shortcuts, which are PyTorch's own
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                graph.module.eval(),
                tuple(graph.inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=shapes,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise CheckpointError(
                f"PyTorch {torch.__version__} cannot export {name} to ONNX ({reason}); take backend torch."
            ) from error
    assert program is not None
    proto = program.model_proto
    del proto.graph.value_info[:]  # of what the exporter then folded away; whoever needs shapes infers them
    return proto


def _check_equal(name: str, path: Path, graph: Graph) -> None:
    """Raise CheckpointError for a graph whose outputs are not PyTorch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {key: tensor.numpy() for key, tensor in graph.inputs.items()})
    with torch.inference_mode():
        expected = graph.module(*graph.inputs.values())
    for output, one, other in zip(graph.outputs, found, expected if len(found) > 1 else [expected], strict=True):
        error = float(np.abs(one - other.numpy()).max())
        if not error <= TOLERANCE * float(other.abs().max()):
            raise CheckpointError(f"{name}.onnx does not compute what PyTorch does: {output} is {error:.2g} away.")
