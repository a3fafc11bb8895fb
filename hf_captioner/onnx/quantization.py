"""ONNX graphs in int8."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

IN_FLOAT32 = 0.2
"""Of a network's convolutions, the first ones, which hold few of its weights and cause much of what int8 changes
(`python -m train.backends` counts it)."""


BLOCK, SMALLEST_BLOCK = 32, 8
"""How many weights of a channel share a scale: as many as divide their number."""
BLOCK_OPSET = 21
"""From which on ONNX has such blocks."""


def quantize(graph: Path, out: Path, images: Tensor | None) -> None:
    """Write a float32 graph in int8.

    images (B, 3, S, S): what the ranges of a network of convolutions are measured on, so that it computes in int8 as
    a whole. Without images only the weights are stored in int8, and every input is quantized as it comes.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self, pixels: Tensor) -> None:
            self.batches = iter(pixels.split(1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"pixel_values": np.ascontiguousarray(batch.numpy())}

    with quiet():
        if images is None:
            quantize_dynamic(graph, out, per_channel=True, weight_type=QuantType.QInt8)
        else:
            kinds: Any = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            kept = _first_nodes(onnx.load(graph))
            quantize_static(graph, out, Images(images), per_channel=True, nodes_to_exclude=kept, **kinds)


def store_weights_in_int8(graph: Path, out: Path) -> None:
    """Write a float32 graph with its weights in int8, which computes in float32: any two devices then compute the same,
    up to the last digits, where activations in int8 are rounded this way on one and that way on another.

    A block of an output channel's weights shares a scale, the largest of them being 127. A network's first convolutions
    stay in float32.
    """
    import onnx

    proto = onnx.load(graph)
    kept = set(_first_nodes(proto))
    in_float32 = {node.input[1] for node in proto.graph.node if node.op_type == "Conv" and node.name in kept}
    for tensor in list(proto.graph.initializer):
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        axis = next((axis for axis, length in enumerate(values.shape) if length > 1), 0) + 1
        few = values.ndim <= axis or values.shape[axis] < SMALLEST_BLOCK
        if values.dtype != np.float32 or few or name in in_float32:
            continue
        block = _block(values.shape[axis])
        blocks = values.reshape(*values.shape[:axis], -1, block, *values.shape[axis + 1 :])
        scale = (np.abs(blocks).max(axis + 1, keepdims=True) / 127).clip(1e-12)
        stored = np.rint(blocks / scale).astype(np.int8).reshape(values.shape)
        proto.graph.initializer.remove(tensor)
        for array, kind in ((stored, "int8"), (scale.squeeze(axis + 1), "scale")):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}_{kind}"))
        read = onnx.helper.make_node(
            "DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], axis=axis, block_size=block
        )
        proto.graph.node.insert(0, read)
    proto.opset_import[0].version = BLOCK_OPSET
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, out)


def _block(weights: int) -> int:
    """The largest block that divides so many weights; all of them where none does."""
    return next((block for block in range(BLOCK, SMALLEST_BLOCK - 1, -1) if weights % block == 0), weights)


def _first_nodes(proto: Any) -> list[str]:
    """The nodes of an `onnx.ModelProto` before the convolution from which on there is int8; none without any."""
    convolutions = [index for index, node in enumerate(proto.graph.node) if node.op_type == "Conv"]
    if not convolutions:
        return []
    return [node.name for node in proto.graph.node[: convolutions[int(IN_FLOAT32 * len(convolutions))]]]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the quantization logs of itself to the root logger, which it would give a handler."""
    root = logging.getLogger()
    handlers, disabled = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers = handlers
