"""The README.md of an export: what goes into each graph and what comes out."""

import json
from pathlib import Path
from typing import Any

from hf_captioner.onnx.export import METADATA, file_names

HEAD = """# This captioner as ONNX graphs

For ONNX Runtime, and whatever else reads opset {opset}. `*_quantized.onnx` is the same in int8.
`config.json` beside this folder says how an image is preprocessed: upright, resized to S x S as a whole, minus
`image_mean`, divided by `image_std`. `tokenizer.json` has the words by their ids.

The encoder makes a feature map of {height} x {width} cells, row by row from the top left. `decoder_start_model` makes
what is computed once for an image; then each call of `decoder_model` reads the words so far, the start token first,
and gives the log-probabilities of the next word and where the model looks as it writes it. It carries `context`, zero
before the first word, and the recurrent state from call to call: what is `next_` of one call goes into the next.
`images` and `hypotheses` may be any number, and each hypothesis of a search brings its own words.

In Python all of it is done by `ImageCaptioner.from_pretrained(..., backend="onnx")` of hf-captioner.
"""


def readme(folder: Path) -> str:
    """What is in a folder that `export_graphs` has filled."""
    import onnx
    import torch

    protos = {name: onnx.load(folder / name) for name in file_names(torch.float32)}
    first = next(iter(protos.values()))
    about = json.loads(next(each.value for each in first.metadata_props if each.key == METADATA))
    _, height, width = about["feature_map"]
    parts = [HEAD.format(opset=first.opset_import[0].version, height=height, width=width)]
    for name, proto in protos.items():
        rows = [("in", each) for each in proto.graph.input] + [("out", each) for each in proto.graph.output]
        table = "".join(f"| {way} | `{each.name}` | {_shape(each)} | {_type(each)} |\n" for way, each in rows)
        parts.append(f"\n## {name}\n\n| | name | shape | type |\n|---|---|---|---|\n{table}")
    return "".join(parts)


def _shape(value: Any) -> str:
    return " x ".join(axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim)


def _type(value: Any) -> str:
    import onnx

    return onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
