"""Attention and recurrent cells: from a feature map and the words so far to the next word's probabilities.

`step` (one word, for generation) and `teacher_forced` (all words, for training) share every formula.
"""

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from hf_captioner.config import CaptionerConfig
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.modeling.linear import linear

RecurrentState = tuple[Tensor, ...]
"""What a recurrent cell carries: (h, c) for an LSTM, (h,) for a GRU, each (R, d)."""


@dataclass(frozen=True)
class ProjectedFeatures:
    """The feature maps of B images, projected; computed once per image."""

    keys: Tensor
    """(B, N, d), already divided by sqrt(d)."""
    values: Tensor
    """(B, N, d)"""
    mask: Tensor | None
    """(B, N) bool, True where there is a cell."""

    def mean(self) -> Tensor:
        """(B, d): the mean value of the real cells."""
        if self.mask is None:
            return self.values.mean(1)
        real = self.mask.to(self.values.dtype)[:, :, None]
        return (self.values * real).sum(1) / real.sum(1)

    def select(self, images: Tensor) -> "ProjectedFeatures":
        mask = None if self.mask is None else self.mask[images]
        return ProjectedFeatures(self.keys[images], self.values[images], mask)


@dataclass(frozen=True)
class DecoderState:
    """What the hypotheses carry from word to word: R rows in every tensor but the features."""

    features: ProjectedFeatures
    """Projected features, once per image; its K = R / B hypotheses are consecutive rows."""
    recurrent: RecurrentState
    context: Tensor
    """x (R, d): the context of the last word; zero before the first."""
    prefix: Tensor
    """What the backward cell reads: (R, t, 4b), what each word so far contributes to its gates; (R, t), the words
    themselves, where ONNX Runtime computes it."""

    def select(self, rows: Tensor, kept: Tensor | None = None) -> "DecoderState":
        """The state whose row i is this one's row rows[i], as many for each image as for the others, in their order.
        kept (A,): the images that have rows in it, in order; None for all of them."""
        features = self.features if kept is None else self.features.select(kept)
        return DecoderState(features, tuple(m[rows] for m in self.recurrent), self.context[rows], self.prefix[rows])


@dataclass(frozen=True)
class DecoderOutput:
    log_probs: Tensor
    """(R, V) float32"""
    attention: Tensor
    """(R, N) float32; each row sums to 1."""
    state: DecoderState


class Decoder(nn.Module):
    """`bilstm`, `lstm` or `gru`, with dot-product attention or the mean feature as the initial state only.

    With v the projected, normalised features and k its keys, for each word t:
        h_t, c_t = cell([E(w_{t-1}); x_{t-1}], (h_{t-1}, c_{t-1}))
        b_t      = the last state of an LSTM that reads w_{t-1}, ..., w_0        (bilstm only)
        q_t      = [h_t; b_t]
        a_t      = softmax(k . W_q q_t / sqrt(d))
        x_t      = sigmoid(W_g q_t) * sum_i a_ti v_i
        p(w_t)   = softmax(E' tanh(W_o [q_t; x_t; E(w_{t-1})]))
    With `attention: none` there is no x_t, and the attention reported is uniform.
    """

    def __init__(self, config: CaptionerConfig, channels: int) -> None:
        super().__init__()
        d, b = config.hidden_size, config.backward_hidden_size if config.decoder == "bilstm" else 0
        self.attends = config.attention == "dot"
        self.dropout = nn.Dropout(config.dropout)
        weight = torch.empty(config.vocabulary_size, d)
        if weight.is_meta:  # where drawing numbers would import PyTorch's compiler, which takes seconds
            self.embedding = nn.Embedding(config.vocabulary_size, d, _weight=weight)
        else:
            self.embedding = nn.Embedding(config.vocabulary_size, d)
            nn.init.normal_(self.embedding.weight, std=d**-0.5)
        self.project = nn.Sequential(nn.Linear(channels, d), nn.LayerNorm(d))
        self.initial = nn.ModuleList(nn.Linear(d, d) for _ in range(1 if config.decoder == "gru" else 2))
        cell = nn.GRUCell if config.decoder == "gru" else nn.LSTMCell
        self.forward_cell = cell(2 * d if self.attends else d, d)
        self.backward_cell = nn.LSTM(d, b, batch_first=True) if b else None
        if self.attends:
            self.key = nn.Linear(d, d, bias=False)
            self.query = nn.Linear(d + b, d, bias=False)
            self.gate = nn.Linear(d + b, d)
        self.hidden = nn.Linear(d + b + d + (d if self.attends else 0), d)
        self.output = nn.Linear(d, config.vocabulary_size)
        nn.init.zeros_(self.output.bias)
        self.is_tied = config.tie_embeddings
        self.tie_weights()

    def tie_weights(self) -> None:
        """Tie the output layer's weights to the word embeddings where the config says so."""
        if self.is_tied:
            self.output.weight = self.embedding.weight

    def start(self, feature_map: FeatureMap) -> DecoderState:
        """The state before the first word, one row per image; the first `step` then gets the start token."""
        values = feature_map.values.to(self.embedding.weight.dtype)
        features, recurrent = self._project(dataclasses.replace(feature_map, values=values))
        rows, _, d = features.values.shape
        gates = 4 * self.backward_cell.hidden_size if self.backward_cell is not None else 0
        return DecoderState(
            features, recurrent, features.values.new_zeros(rows, d), features.values.new_empty(rows, 0, gates)
        )

    def step(self, words: Tensor, state: DecoderState) -> DecoderOutput:
        """Read one word per row, words (R,); return the next word's log-probabilities and attention.

        Without dropout, also in training mode: captions do not depend on a mode that was left on.
        """
        embedded, gates, backward = self.embedding(words), state.prefix, None
        if self.backward_cell is not None:
            gates = torch.cat([gates, self._backward_gates(embedded)[:, None]], 1)
            h = c = gates.new_zeros(len(gates), self.backward_cell.hidden_size)
            for read in reversed(gates.unbind(1)):
                h, c = self._backward(read, h, c)
            backward = h
        log_probs, attention, context, *recurrent = self.predict(
            embedded, state.context, state.recurrent, backward, state.features
        )
        return DecoderOutput(log_probs, attention, DecoderState(state.features, tuple(recurrent), context, gates))

    def predict(
        self,
        embedded: Tensor,
        context: Tensor,
        recurrent: RecurrentState,
        backward: Tensor | None,
        features: ProjectedFeatures,
    ) -> tuple[Tensor, ...]:
        """One word: log_probs (R, V) and attention (R, N) in float32, the new context and recurrent state.

        embedded (R, d): the last word. backward (R, b): what the backward cell made of the prefix; None without one.
        """
        recurrent, query, context, attention = self._attend(embedded, context, recurrent, backward, features)
        log_probs = self._logits(self._hidden(query, context, embedded)).float().log_softmax(-1)
        return log_probs, attention.float(), context, *recurrent

    def teacher_forced(
        self, feature_map: FeatureMap, words: Tensor, lengths: Tensor
    ) -> tuple[PackedSequence, PackedSequence]:
        """Logits of every next word at once, each given the true words before it.

        feature_map: B images. words (R, T): start token first, R = B * K captions in the images' order.
        lengths (R,) on the CPU: how many of each row's words are read. Returns packed logits (., V) and attention
        (., N) with as many places a row as words were read; `pack_padded_sequence` of the targets lines up with them.
        """
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        order, sizes = cast(Tensor, packed.sorted_indices), packed.batch_sizes.tolist()
        images = order // (len(words) // len(feature_map.values))
        features, recurrent = self._project(feature_map)
        features, recurrent = features.select(images), tuple(m[images] for m in recurrent)
        embedded = self.dropout(self.embedding(packed.data)).split(sizes)
        backwards = self._backward_lock_step(embedded, sizes)
        context = features.values.new_zeros(len(order), features.values.shape[-1])
        queries, contexts, attentions = [], [], []
        for t, rows in enumerate(sizes):
            features = ProjectedFeatures(
                features.keys[:rows], features.values[:rows], None if features.mask is None else features.mask[:rows]
            )
            recurrent, query, context, attention = self._attend(
                embedded[t], context[:rows], tuple(m[:rows] for m in recurrent), backwards[t], features
            )
            queries.append(query)
            contexts.append(context)
            attentions.append(attention)
        logits = self._logits(self.dropout(self._hidden(torch.cat(queries), torch.cat(contexts), torch.cat(embedded))))
        shape = packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
        return PackedSequence(logits, *shape), PackedSequence(torch.cat(attentions), *shape)

    def _project(self, feature_map: FeatureMap) -> tuple[ProjectedFeatures, RecurrentState]:
        cells, norm = cast(tuple[nn.Linear, nn.LayerNorm], tuple(self.project))
        values = norm(linear(feature_map.values.flatten(0, 1), cells.weight, cells.bias)).unflatten(
            0, feature_map.values.shape[:2]
        )
        keys = values
        if self.attends:
            keys = linear(values.flatten(0, 1), self.key.weight).view_as(values) * values.shape[-1] ** -0.5
        features = ProjectedFeatures(keys, values, feature_map.mask)
        mean = features.mean()
        return features, tuple(torch.tanh(part(mean)) for part in self.initial)

    def _backward_lock_step(self, embedded: tuple[Tensor, ...], sizes: list[int]) -> list[Tensor | None]:
        """b_t of every position t of every row, without padding.

        embedded[t] (sizes[t], d): word t of the rows that are long enough, longest row first. Prefixes are sorted
        longest first. At step k each reads the word k places before its end; those of length k + 1 are then finished:
        the last sizes[k] rows.
        """
        if self.backward_cell is None:
            return [None] * len(sizes)
        places = len(sizes)
        gates = [self._backward_gates(words) for words in embedded]
        h = c = embedded[0].new_zeros(sum(sizes), self.backward_cell.hidden_size)
        done: list[Tensor | None] = []
        for k in range(places):
            # The prefix that ends at position t reads position t - k; only rows with a position t go on.
            read = torch.cat([gates[t - k][: sizes[t]] for t in range(places - 1, k - 1, -1)])
            h, c = self._backward(read, h, c)
            running = len(h) - sizes[k]
            done.append(h[running:])
            h, c = h[:running], c[:running]
        return done

    def _backward_gates(self, embedded: Tensor) -> Tensor:
        """What words contribute to the backward cell's gates (R, 4b); independent of the state, so computed once."""
        w_ih, b_ih, b_hh = (self._of_backward(name) for name in ("weight_ih", "bias_ih", "bias_hh"))
        return linear(embedded, w_ih, b_ih + b_hh)

    def _backward(self, read: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the backward cell: a word's gates (R, 4b) and the state before -> the state after."""
        return _lstm(read + linear(h, self._of_backward("weight_hh")), c)

    def _of_backward(self, name: str) -> Tensor:
        return cast(Tensor, getattr(self.backward_cell, f"{name}_l0"))

    def _attend(
        self,
        embedded: Tensor,
        context: Tensor,
        recurrent: RecurrentState,
        backward: Tensor | None,
        features: ProjectedFeatures,
    ) -> tuple[RecurrentState, Tensor, Tensor, Tensor]:
        """One step: the new recurrent state, q_t, x_t and a_t of each row."""
        if self.attends:
            embedded = torch.cat([embedded, context.to(embedded.dtype)], 1)
        recurrent = self._forward(embedded, recurrent)
        query = recurrent[0] if backward is None else torch.cat([recurrent[0], backward], 1)
        if not self.attends:
            uniform = _uniform(features)
            each = query.shape[0] // uniform.shape[0]
            return recurrent, query, context, uniform[:, None].expand(-1, each, -1).flatten(0, 1)
        asked = linear(query, self.query.weight).view(features.keys.shape[0], -1, self.query.out_features)  # (B, K, d)
        scores = torch.bmm(asked, features.keys.transpose(1, 2)).float()
        if features.mask is not None:
            scores = scores.masked_fill(~features.mask[:, None], float("-inf"))
        attention = scores.softmax(-1)
        attended = torch.bmm(attention.to(features.values.dtype), features.values).flatten(0, 1)
        return (
            recurrent,
            query,
            torch.sigmoid(linear(query, self.gate.weight, self.gate.bias)) * attended,
            attention.flatten(0, 1),
        )

    def _forward(self, read: Tensor, recurrent: RecurrentState) -> RecurrentState:
        """One step of the forward cell, as torch's LSTMCell or GRUCell defines it."""
        cell = self.forward_cell
        of_input = linear(read, cell.weight_ih, cell.bias_ih)
        of_state = linear(recurrent[0], cell.weight_hh, cell.bias_hh)
        if len(recurrent) == 2:
            return _lstm(of_input + of_state, recurrent[1])
        (r, z, n), (hr, hz, hn) = of_input.chunk(3, 1), of_state.chunk(3, 1)
        z, n = torch.sigmoid(z + hz), torch.tanh(n + torch.sigmoid(r + hr) * hn)
        return (n + z * (recurrent[0] - n),)

    def _hidden(self, query: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        parts = [query, context, embedded] if self.attends else [query, embedded]
        return torch.tanh(linear(torch.cat(parts, 1), self.hidden.weight, self.hidden.bias))

    def _logits(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.output.weight, self.output.bias)


def _lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Gates (R, 4d), in torch.nn.LSTM's order, and c before (R, d) -> h and c after."""
    i, f, g, o = gates.chunk(4, 1)
    c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
    return torch.sigmoid(o) * torch.tanh(c), c


def _uniform(features: ProjectedFeatures) -> Tensor:
    """Uniform attention (B, N) over the real cells, for a decoder without attention."""
    real = torch.ones_like(features.values[:, :, 0], dtype=torch.float32)
    if features.mask is not None:
        real = real * features.mask
    return real / real.sum(1, keepdim=True)
