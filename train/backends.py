"""How far captions computed in another way are from PyTorch's in float32: `python -m train.backends --data DATA`.

For ONNX Runtime in float32 and int8, and for PyTorch in bfloat16: how many captions differ, how much the confidence
changes, and how much of a word's attention lies elsewhere, in captions that are the same. Scores are printed by
`hf-captioner evaluate DATA --backend onnx --dtype int8`.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.modeling.device import Way
from hf_captioner.training.command import command_parser, measured_split, run_command
from train.benchmark import Row, name_of, print_table

PLAIN = Way("torch", torch.float32)
Answer = Mapping[str, Any]
CHANGES = ("captions that differ", "confidence, mean change", "largest", "attention moved, mean", "most")
OTHERS = (Way("onnx", torch.float32), Way("onnx", torch.int8), Way("torch", torch.bfloat16))


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """(way, captions that differ, how much the confidence changes, and which share of a word's attention)."""

    def caption(way: Way) -> list[Answer]:
        captioner = ImageCaptioner.from_pretrained(options.model, device="cpu", backend=way.backend, dtype=way.dtype)
        return [caption.to_dict(attention=True) for caption in captioner.caption(images, progress=True)]

    plain = ImageCaptioner.from_pretrained(options.model, device="cpu", backend="torch")
    images = [record.path for record in measured_split(options, plain, limit=options.limit)]
    expected = caption(PLAIN)
    for way in OTHERS:
        yield name_of(way), *changes(expected, caption(way))


def changes(expected: Sequence[Answer], found: Sequence[Answer]) -> Row:
    """Of captions as `Caption.to_dict` gives them with their attention."""
    pairs = list(zip(expected, found, strict=True))
    confidences = [abs((one["confidence"] or 0) - (other["confidence"] or 0)) for one, other in pairs]
    same = [pair for pair in pairs if pair[0]["caption"] == pair[1]["caption"]]
    moved = [
        np.abs(np.subtract(mine["attention"], theirs["attention"])).sum() / 2
        for one, other in same
        for mine, theirs in zip(one["words"], other["words"], strict=True)
    ]
    return (
        f"{len(pairs) - len(same):,} of {len(pairs):,}",
        f"{statistics.mean(confidences):.3f}",
        f"{max(confidences):.3f}",
        f"{np.mean(moved):.1%}" if moved else "-",
        f"{max(moved):.1%}" if moved else "-",
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("backends", __doc__)
    parser.prog = "python -m train.backends"
    parser.add_argument("--limit", type=int, help="validation images of each data set (default: all)")
    options = parser.parse_args(argv)
    return run_command(parser.prog, lambda: print_table(("", *CHANGES), rows(options)))


if __name__ == "__main__":
    sys.exit(main())
