"""Self-critical training samples captions as it should and raises their reward."""

import pytest
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.images import preprocess
from tests.conftest import SENTENCES, generated
from train.batches import collate
from train.objectives import CrossEntropy, SelfCritical
from train.rewards import CiderD


@pytest.fixture
def objective(tiny_captioner: ImageCaptioner) -> SelfCritical:
    end = tiny_captioner.tokenizer.end_id
    references = [[[*tiny_captioner.tokenizer.encode(sentence), end]] for sentence in SENTENCES]
    return SelfCritical(CrossEntropy(tiny_captioner), CiderD(references), samples=8, max_length=10)


def test_a_sample_ends_with_the_end_token_or_is_cut(objective: SelfCritical, tiny_captioner: ImageCaptioner) -> None:
    words = tiny_captioner.tokenizer
    torch.manual_seed(0)
    captions = objective._sample(tiny_captioner.encode(torch.randn(4, 3, 64, 64)))
    assert len(captions) == 32
    for ids in captions:
        assert not {words.pad_id, words.start_id, words.unknown_id} & set(ids)
        assert ids.count(words.end_id) <= 1
        assert ids[-1] == words.end_id or len(ids) == 10


def test_training_on_the_reward_raises_it(objective: SelfCritical, tiny_captioner: ImageCaptioner) -> None:
    words = tiny_captioner.tokenizer
    pixels = torch.stack([preprocess(generated(i), tiny_captioner.config) for i in range(4)])
    grids = tiny_captioner.encode(pixels).values.clone()
    batch = collate([(i, grids[i], [words.encode(SENTENCES[i])]) for i in range(4)])
    optimizer = torch.optim.AdamW(tiny_captioner.decoder.parameters(), lr=5e-3)
    torch.manual_seed(0)
    rewards = []
    for step in range(120):
        found = (objective.cross_entropy if step < 20 else objective)(batch)
        (found.loss / found.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
        rewards.append(-float(found.value / found.weight))
    assert sum(rewards[-10:]) > 1.2 * sum(rewards[20:30]) > 0


def test_words_read_are_replaced_but_never_the_start_token(tiny_captioner: ImageCaptioner) -> None:
    words = tiny_captioner.tokenizer
    values = torch.randn(
        2, tiny_captioner.encoder.height * tiny_captioner.encoder.width, tiny_captioner.encoder.channels
    )
    batch = collate([(i, values[i], [words.encode(SENTENCES[i])]) for i in range(2)])
    plain = CrossEntropy(tiny_captioner)
    grid = plain.grid(batch)
    assert torch.equal(plain._read(grid, batch), batch.words)
    for option in ("word_dropout", "scheduled_sampling"):
        torch.manual_seed(0)
        read = CrossEntropy(tiny_captioner, **{option: 0.9})._read(grid, batch)
        assert torch.equal(read[:, 0], batch.words[:, 0]) and not torch.equal(read, batch.words)
        if option == "word_dropout":
            assert (read == words.unknown_id).any()


def test_uneven_attention_costs(tiny_captioner: ImageCaptioner) -> None:
    words, encoder = tiny_captioner.tokenizer, tiny_captioner.encoder
    values = torch.randn(8, encoder.height * encoder.width, encoder.channels)
    batch = collate([(i, values[i], [words.encode(SENTENCES[i % 4])]) for i in range(8)])
    plain, penalised = (CrossEntropy(tiny_captioner, attention_penalty=weight) for weight in (0.0, 1.0))
    grid = plain.grid(batch)
    assert penalised.of(grid, batch) > plain.of(grid, batch)
