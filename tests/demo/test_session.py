"""What a visitor can ask of a photograph, without a browser."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_captioner import Caption, ConfigError, ImageCaptioner, Word
from hf_captioner.demo import tab_single as one
from hf_captioner.demo.session import (
    CELLS,
    LIVELY,
    LONGER,
    NOTHING,
    SHORTER,
    CaptionRequest,
    Session,
    alternatives,
    changed_words,
    html_snippet,
    most_attended,
    recaption,
    sentence,
    start_session,
)
from hf_captioner.hub.packaged import data_path


@pytest.fixture
def session(tiny_captioner: ImageCaptioner, image_path: Path) -> Session:
    return start_session(tiny_captioner, image_path)


def spoken(text: str) -> Caption:
    attention = np.full((2, 2), 0.25, np.float32)
    return Caption(text, tuple(Word(word, 0.5, attention, ()) for word in text.split()), 0.0)


def test_the_page_says_what_python_says(tiny_captioner: ImageCaptioner, session: Session, image_path: Path) -> None:
    assert session.plain.text == tiny_captioner.caption(image_path).text
    steered = recaption(tiny_captioner, session, CaptionRequest(prefix="two dog", bad_words="beach, grass"), NOTHING)
    same = tiny_captioner.caption(image_path, prefix="two dog", bad_words=["beach", "grass"])
    assert [answer.text for answer in steered.answers] == [same.text]


def test_nothing_asked_is_nothing_answered(tiny_captioner: ImageCaptioner, session: Session) -> None:
    assert recaption(tiny_captioner, session, CaptionRequest(seed=3), NOTHING).answers == ()


def test_what_is_covered_is_not_seen(tiny_captioner: ImageCaptioner, session: Session) -> None:
    answer = recaption(tiny_captioner, session, CaptionRequest(), ~NOTHING).answers[0]
    flat = session.pixels.mean((1, 2), keepdim=True).expand_as(session.pixels)
    generation_config = tiny_captioner.prepare_generation_config({})
    blind = tiny_captioner.caption_features(tiny_captioner.encode(flat[None]), generation_config)[0]
    assert answer.text == blind.text != session.plain.text


def test_lengths_are_what_they_say(tiny_captioner: ImageCaptioner, session: Session) -> None:
    words = len(session.plain.words)
    longer = recaption(tiny_captioner, session, CaptionRequest(length=LONGER), NOTHING).answers[0]
    assert len(longer.words) > words
    try:
        shorter = recaption(tiny_captioner, session, CaptionRequest(length=SHORTER), NOTHING).answers[0]
    except ConfigError as error:
        assert "no shorter caption" in str(error)
    else:
        assert len(shorter.words) < words and shorter.finished


def test_the_bundled_model_says_it_shorter_and_longer_and_doubts_a_cat() -> None:
    captioner, examples = ImageCaptioner.from_pretrained(), data_path("space") / "examples"
    session = start_session(captioner, examples / "camera.jpg")
    words = len(session.plain.words)
    shorter, longer = (
        recaption(captioner, session, CaptionRequest(length=length), NOTHING).answers[0] for length in (SHORTER, LONGER)
    )
    assert len(shorter.words) < words < len(longer.words)
    assert shorter.finished and longer.finished
    assert "Check this one" in one.sure(start_session(captioner, examples / "chelsea.jpg").plain)


def test_a_doubtful_caption_is_warned_of() -> None:
    told = [one.sure(dataclasses.replace(spoken("a dog"), confidence=sure)) for sure in (0.1, 0.9, None)]
    assert told[0].startswith("⚠️") and "10%" in told[0]
    assert told[1].startswith("Confidence 90%") and told[2] == ""


def test_three_captions_differ_and_each_draw_is_another(tiny_captioner: ImageCaptioner, session: Session) -> None:
    several = recaption(tiny_captioner, session, CaptionRequest(several=True), NOTHING).answers
    assert len({answer.text for answer in several}) == 3
    drawn = {
        recaption(tiny_captioner, session, CaptionRequest(mood=LIVELY, seed=seed), NOTHING).answers[0].text
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_a_word_that_the_model_does_not_know_is_named(tiny_captioner: ImageCaptioner, session: Session) -> None:
    with pytest.raises(ConfigError, match="doesn't know 'submarine'"):
        recaption(tiny_captioner, session, CaptionRequest(prefix="two submarine"), NOTHING)


def test_a_choice_is_the_beginning_of_another_caption(tiny_captioner: ImageCaptioner, session: Session) -> None:
    for label, beginning in alternatives(tiny_captioner, session.plain, 1):
        assert beginning.split()[0] == session.plain.words[0].text
        assert label.startswith(f"{beginning.split()[1]} (") and label.endswith("%)")
        answer = recaption(tiny_captioner, session, CaptionRequest(prefix=beginning), NOTHING).answers[0]
        assert answer.text.startswith(beginning)


def test_the_most_attended_fifth_is_a_fifth() -> None:
    attention = np.zeros((10, 10), np.float32)
    attention[2:4] = np.arange(1, 21).reshape(2, 10)
    cells = most_attended(attention)
    assert cells.shape == (CELLS, CELLS)
    assert cells.mean() == pytest.approx(0.2, abs=0.03)
    assert cells[8].all() and not cells[0].any()


def test_changed_words_are_marked() -> None:
    before, after = spoken("a brown dog runs in the snow"), spoken("a white dog runs through the deep snow")
    assert changed_words(before, after) == [False, True, False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("caption", "said"),
    [("a dog runs", "A dog runs."), ("a dog runs.", "A dog runs."), ("", ""), ("  who? ", "Who?")],
)
def test_an_alternative_text_is_a_sentence(caption: str, said: str) -> None:
    assert sentence(caption) == said


def test_names_and_words_are_no_markup_in_the_snippet() -> None:
    found = html_snippet('"><script>.jpg', 'a "big" <b>dog</b>')
    assert found == ('<img src="&quot;&gt;&lt;script&gt;.jpg" alt="a &quot;big&quot; &lt;b&gt;dog&lt;/b&gt;">')


def test_a_large_photograph_is_shown_small_and_read_whole(tiny_captioner: ImageCaptioner) -> None:
    session = start_session(tiny_captioner, Image.new("RGB", (4000, 3000), "red"))
    with Image.open(io.BytesIO(session.photograph)) as photograph:
        assert photograph.size == (1280, 960)
    assert session.colour == (255, 0, 0)
    assert session.pixels.shape == torch.Size((3, 64, 64))
