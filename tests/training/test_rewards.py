"""The rewards are pycocoevalcap's own numbers on the same tokens."""

import random

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from hf_captioner.training.rewards import Bleu4, CiderD

DRAW = random.Random(0)
REFERENCES = [[[DRAW.randrange(12) for _ in range(DRAW.randrange(3, 12))] for _ in range(5)] for _ in range(40)]
FOUND = [[*DRAW.choice(group)[: DRAW.randrange(1, 12)], DRAW.randrange(14)] for group in REFERENCES]
SPELLED = {i: [" ".join(map(str, ids)) for ids in group] for i, group in enumerate(REFERENCES)}
SAID = {i: [" ".join(map(str, ids))] for i, ids in enumerate(FOUND)}


def test_cider_d_is_pycocoevalcaps() -> None:
    _, expected = Cider().compute_score(SPELLED, SAID)
    reward = CiderD(REFERENCES)
    assert [reward(i, ids) for i, ids in enumerate(FOUND)] == pytest.approx(expected.tolist(), rel=1e-9)
    assert max(expected) > 1


def test_bleu_4_is_pycocoevalcaps() -> None:
    _, expected = Bleu(4).compute_score(SPELLED, SAID, verbose=0)
    reward = Bleu4(REFERENCES)
    assert [reward(i, ids) for i, ids in enumerate(FOUND)] == pytest.approx(expected[3], rel=1e-6)
    assert max(expected[3]) > 0.3


def test_no_words_and_unknown_words_earn_nothing() -> None:
    reward = CiderD([[[1, 2, 3]], [[4, 5, 6]]])
    assert reward(0, []) == 0
    assert reward(0, [9, 9]) == 0
    assert reward(0, [4, 5, 6]) == 0
    assert reward(0, [1, 2, 3]) > reward(0, [1, 2]) > 0
    assert Bleu4([[[1, 2, 3]]])(0, []) == 0
