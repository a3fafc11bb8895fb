"""How far captions computed in another way are from PyTorch's in float32: `python -m train.backends --data DATA`.

For ONNX Runtime in float32 and int8, for the graphs of the page in the browser, and for PyTorch in bfloat16: CIDEr, how
many captions differ, how much the confidence changes, and how much of a word's attention lies elsewhere, in captions
that are the same.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.modeling.device import Way
from hf_captioner.onnx.export import FOLDER
from hf_captioner.training.command import command_parser, measured_split, run_command
from hf_captioner.training.evaluate import score_each
from train.benchmark import Row, name_of, print_table

OTHERS = (Way("onnx", torch.float32), Way("onnx", torch.int8), Way("torch", torch.bfloat16))
CHANGES = ("captions that differ", "confidence, mean change", "largest", "attention moved, mean", "most")
Answer = Mapping[str, Any]


def captioners(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, ImageCaptioner]]:
    """The same captioner in every way, PyTorch in float32 first. folder: for the page's graphs."""
    plain = ImageCaptioner.from_pretrained(options.model, device="cpu", backend="torch", dtype="float32")
    yield name_of(Way("torch", torch.float32)), plain
    for way in OTHERS:
        yield (
            name_of(way),
            ImageCaptioner.from_pretrained(options.model, device="cpu", backend=way.backend, dtype=way.dtype),
        )
    plain.export_web(folder / "page")
    plain.take_export(folder / "page" / FOLDER, torch.int8)
    yield "the page in the browser, int8 weights", plain


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """(way, CIDEr of each data set, and what `changes` counts)."""
    expected: Sequence[Answer] = []
    for name, captioner in captioners(options, folder):
        records = measured_split(options, captioner, limit=options.limit)
        captions = captioner.caption([record.path for record in records], progress=True)
        answers: Sequence[Answer] = [caption.to_dict(attention=True) for caption in captions]
        scores = score_each([caption.text for caption in captions], records, meteor=False)
        expected = expected or answers
        yield name, " / ".join(f"{100 * each['CIDEr']:.1f}" for each in scores.values()), *changes(expected, answers)


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
        f"{100 * np.mean(moved):.1f} %" if moved else "-",
        f"{100 * max(moved):.1f} %" if moved else "-",
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("backends", __doc__)
    parser.prog = "python -m train.backends"
    parser.add_argument("--limit", type=int, help="validation images of each data set (default: all)")
    options = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        print_table(("", "CIDEr", *CHANGES), rows(options, Path(temporary)))


if __name__ == "__main__":
    sys.exit(main())
