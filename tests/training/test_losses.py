"""Self-critical training samples captions as it should and raises their reward."""

import pytest
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.images import preprocess
from hf_captioner.training.dataset import collate
from hf_captioner.training.losses import CrossEntropy, SelfCritical
from hf_captioner.training.rewards import CiderD
from tests.conftest import SENTENCES, generated


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
    features = tiny_captioner.encode(pixels).values.clone()
    batch = collate([(i, features[i], [words.encode(SENTENCES[i])]) for i in range(4)])
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
