"""What each ONNX graph computes, as modules around a captioner's own, and what goes in and out.

Shapes are those of the package; the axes that may have any length have names: `images` B, `hypotheses` K, `words` t,
`cells` N.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_captioner.modeling.decoder import Decoder, ProjectedFeatures
from hf_captioner.modeling.encoder import Encoder, FeatureMap

ENCODER, START, STEP = "encoder_model", "decoder_start_model", "decoder_model"
GRAPHS = (ENCODER, START, STEP)
"""Names of the files, without their ending: pixels -> feature map -> the state before the first word -> a word."""


@dataclass(frozen=True)
class Graph:
    """A module to export, its inputs by name, and the axes of each input and output that may have any length."""

    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


def graphs_of(encoder: Encoder, decoder: Decoder) -> dict[str, Graph]:
    """The graphs of a captioner by their names, with inputs to trace them by."""
    size, channels = encoder.config.image_size, encoder.channels
    d, cells = decoder.embedding.embedding_dim, encoder.height * encoder.width
    recurrent = recurrent_names(decoder)
    images, hypotheses, words = 2, 3, 4  # all different, and none 1, which the exporter would take for fixed
    state = {0: "images", 1: "hypotheses"}
    features = {0: "images", 1: "cells"}
    noise = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=noise)

    read = torch.randint(len(decoder.embedding.weight), (images, hypotheses, words), generator=noise)
    carried = {name: some(images, hypotheses, d) for name in ("context", *recurrent)}
    return {
        ENCODER: Graph(
            EncoderGraph(encoder), {"pixel_values": some(images, 3, size, size)}, {"pixel_values": {0: "images"}},
            ("feature_map",),
        ),
        START: Graph(
            StartGraph(decoder), {"feature_map": some(images, cells, channels)}, {"feature_map": features},
            ("keys", "values", *recurrent),
        ),
        STEP: Graph(
            StepGraph(decoder),
            {"input_ids": read, "keys": some(images, cells, d), "values": some(images, cells, d), **carried},
            {"input_ids": {**state, 2: "words"}, "keys": features, "values": features, **dict.fromkeys(carried, state)},
            ("log_probs", "attention", "next_context", *(f"next_{name}" for name in recurrent)),
        ),
    }  # fmt: skip


def recurrent_names(decoder: Decoder) -> tuple[str, ...]:
    """What the recurrent cell carries: an LSTM two tensors, a GRU one."""
    return ("hidden", "cell")[: len(decoder.initial)]


class EncoderGraph(nn.Module):
    """pixel_values (B, 3, S, S), preprocessed -> feature_map (B, N, C)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: Tensor) -> Tensor:
        values: Tensor = self.encoder(pixel_values).values
        return values


class StartGraph(nn.Module):
    """feature_map (B, N, C) -> keys and values (B, N, d), and the initial recurrent state, (B, d) each."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, feature_map: Tensor) -> tuple[Tensor, ...]:
        state = self.decoder.start(FeatureMap(feature_map, 1, feature_map.shape[1]))
        return state.features.keys, state.features.values, *state.recurrent


class StepGraph(nn.Module):
    """input_ids (B, K, t), every word so far; keys, values; context and recurrent state, (B, K, d) each ->
    log_probs (B, K, V), attention (B, K, N), the next context and recurrent state."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.backward_read = None if decoder.backward_cell is None else BackwardRead(decoder.backward_cell)

    def forward(
        self,
        input_ids: Tensor,
        keys: Tensor,
        values: Tensor,
        context: Tensor,
        hidden: Tensor,
        cell: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        decoder, rows = self.decoder, input_ids.shape[:2]
        carried = (context, hidden) if cell is None else (context, hidden, cell)
        context, *recurrent = (part.flatten(0, 1) for part in carried)
        read = input_ids.flatten(0, 1)
        embedded = decoder.embedding(read[:, -1])
        backward = None if self.backward_read is None else self.backward_read(decoder.embedding(read.T))
        output = decoder.predict(embedded, context, tuple(recurrent), backward, ProjectedFeatures(keys, values, None))
        return tuple(part.unflatten(0, rows) for part in output)


class BackwardRead(nn.Module):
    """The backward cell over a prefix as ONNX's own LSTM, for the exporter would unroll a loop over its words.

    ONNX, operator LSTM: W [iofc] (1, 4b, d), R [iofc] (1, 4b, b), B (1, 8b), where PyTorch has the gates as i, f, g, o.
    """

    def __init__(self, cell: nn.LSTM) -> None:
        super().__init__()
        self.cell, self.size = cell, cell.hidden_size
        w, r, *biases = (
            _iofc(getattr(cell, f"{name}_l0").detach()) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.w, self.r, self.b = (nn.Parameter(part[None].contiguous()) for part in (w, r, torch.cat(biases)))

    def forward(self, embedded: Tensor) -> Tensor:
        """Words (t, R, d) -> the state after reading them from the last to the first, (R, b)."""
        if not torch.compiler.is_exporting():
            last: Tensor = self.cell(embedded.flip(0).transpose(0, 1))[1][0]
            return last[0]
        words, rows, _ = embedded.shape
        shapes: Sequence[Any] = [(words, 1, rows, self.size), (1, rows, self.size), (1, rows, self.size)]
        _, last, _ = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            [embedded, self.w, self.r, self.b],
            {"hidden_size": self.size, "direction": "reverse"},
            dtypes=[embedded.dtype] * 3,
            shapes=shapes,
        )
        return last[0]


def _iofc(gates: Tensor) -> Tensor:
    i, f, g, o = gates.chunk(4)
    return torch.cat([i, o, f, g])
