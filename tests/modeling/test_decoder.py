"""The decoder cannot cheat in training, and trains on exactly what it later does."""

import math
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_captioner import CaptionerConfig
from hf_captioner.config import ATTENTIONS, DECODERS
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.encoder import FeatureMap

V, N, C = 23, 6, 12
EVERY_DECODER = [(kind, attention) for kind in DECODERS for attention in ATTENTIONS]
LENGTHS = torch.tensor([3, 7, 5, 7])


def build(kind: str, attention: str, **more: Any) -> tuple[Decoder, FeatureMap, torch.Tensor]:
    torch.manual_seed(0)
    config = CaptionerConfig(
        V, decoder=kind, attention=attention, hidden_size=16, backward_hidden_size=8, dropout=0.0, **more
    )
    words = torch.randint(4, V, (4, 7))
    words[:, 0] = 1
    return Decoder(config, C), FeatureMap(torch.randn(2, N, C), 2, 3), words


def forced(decoder: Decoder, grid: FeatureMap, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    packed = decoder.teacher_forced(grid, words, LENGTHS)
    logits, attention = (pad_packed_sequence(part, batch_first=True)[0] for part in packed)
    return logits.log_softmax(-1), attention


@pytest.mark.parametrize(("kind", "attention"), EVERY_DECODER)
def test_a_later_word_changes_no_earlier_output(kind: str, attention: str) -> None:
    decoder, grid, words = build(kind, attention)
    before, looked = forced(decoder, grid, words)
    for place in range(1, 7):
        changed = words.clone()
        changed[:, place] = (words[:, place] + 1 - 4) % (V - 4) + 4
        after, looks = forced(decoder, grid, changed)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=0)
        torch.testing.assert_close(looks[:, :place], looked[:, :place], rtol=0, atol=0)
        reads_it = place < LENGTHS
        assert not torch.allclose(after[reads_it, place], before[reads_it, place])


@pytest.mark.parametrize(("kind", "attention"), EVERY_DECODER)
def test_teacher_forced_equals_step_by_step(kind: str, attention: str) -> None:
    decoder, grid, words = build(kind, attention)
    log_probs, looked = forced(decoder, grid, words)
    state = decoder.start(grid).select(torch.tensor([0, 0, 1, 1]))
    for place in range(7):
        step = decoder.step(words[:, place], state)
        running = place < LENGTHS
        torch.testing.assert_close(step.log_probs[running], log_probs[running, place], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(step.attention[running], looked[running, place], atol=1e-5, rtol=1e-5)
        state = step.state


@pytest.mark.parametrize(("kind", "attention"), EVERY_DECODER)
def test_padded_cells_are_never_seen(kind: str, attention: str) -> None:
    decoder, grid, _ = build(kind, attention)
    padded = torch.cat([grid.values, torch.full((2, 2, C), 100.0)], 1)
    mask = torch.arange(N + 2).expand(2, -1) < N
    start = torch.tensor([1, 1])
    plain = decoder.step(start, decoder.start(grid))
    masked = decoder.step(start, decoder.start(FeatureMap(padded, 2, 4, mask)))
    torch.testing.assert_close(masked.log_probs, plain.log_probs)
    torch.testing.assert_close(masked.attention[:, :N], plain.attention)
    assert bool((masked.attention[:, N:] == 0).all())
    torch.testing.assert_close(masked.attention.sum(1), torch.ones(2))


@pytest.mark.parametrize("kind", DECODERS)
def test_attention_none_sees_only_the_mean(kind: str) -> None:
    decoder, grid, words = build(kind, "none")
    mean = FeatureMap(grid.values[:, torch.randperm(N)], 2, 3)
    torch.testing.assert_close(forced(decoder, grid, words)[0], forced(decoder, mean, words)[0])


def test_the_backward_cell_reads_the_whole_prefix() -> None:
    """With the forward cell silenced, the first word still matters at the last place."""
    decoder, grid, words = build("bilstm", "none")
    with torch.no_grad():
        for parameter in decoder.forward_cell.parameters():
            parameter.zero_()
    changed = words.clone()
    changed[:, 1] = 5
    changed[:, 1][words[:, 1] == 5] = 6
    before, after = forced(decoder, grid, words)[0], forced(decoder, grid, changed)[0]
    assert not torch.allclose(before[1, 6], after[1, 6])


@pytest.mark.parametrize(("kind", "attention"), EVERY_DECODER)
def test_every_parameter_gets_a_gradient(kind: str, attention: str) -> None:
    decoder, grid, words = build(kind, attention)
    logits, _ = decoder.teacher_forced(grid, words, LENGTHS)
    torch.nn.functional.cross_entropy(logits.data, torch.randint(4, V, (int(LENGTHS.sum()),))).backward()
    silent = [n for n, p in decoder.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # A single query's softmax is blind to what all cells share, but no part of the decoder is unused.
    assert silent == []


@pytest.mark.parametrize(("kind", "attention"), EVERY_DECODER)
def test_it_starts_knowing_nothing_and_learns_four_sentences(kind: str, attention: str) -> None:
    decoder, _, words = build(kind, attention)
    grid = FeatureMap(torch.randn(4, N, C), 2, 3)
    targets = torch.cat([words[:, 1:], torch.full((4, 1), 2)], 1)
    wanted = pack_padded_sequence(targets, LENGTHS, batch_first=True, enforce_sorted=False).data
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(decoder.teacher_forced(grid, words, LENGTHS)[0].data, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(V), abs=0.5)
    assert losses[-1] < 0.1


def test_untied_embeddings_are_two_matrices() -> None:
    tied, untied = build("bilstm", "dot")[0], build("bilstm", "dot", tie_embeddings=False)[0]
    assert tied.output.weight is tied.embedding.weight
    assert untied.output.weight is not untied.embedding.weight
