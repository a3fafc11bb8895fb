"""What a visitor can request for an image, without a browser."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_captioner import Caption, ConfigError, ImageCaptioner, ImageError, Word
from hf_captioner.demo.session import (
    LONGER,
    MASK_SIZE,
    MORE_VARIED,
    NOTHING_COVERED,
    SHORTER,
    CaptionRequest,
    Session,
    alternatives,
    as_sentence,
    changed_words,
    html_snippet,
    most_attended,
    most_different,
    recaption,
    start_session,
)
from hf_captioner.demo.tab_single import confidence_note
from hf_captioner.hub.packaged import data_path


@pytest.fixture
def session(tiny_captioner: ImageCaptioner, image_path: Path) -> Session:
    return start_session(tiny_captioner, image_path)


def caption_of(text: str) -> Caption:
    attention = np.full((2, 2), 0.25, np.float32)
    return Caption(text, tuple(Word(word, 0.5, attention, ()) for word in text.split()), 0.0)


def test_the_page_says_what_python_says(tiny_captioner: ImageCaptioner, session: Session, image_path: Path) -> None:
    assert session.caption.text == tiny_captioner.caption(image_path).text
    steered = recaption(
        tiny_captioner, session, CaptionRequest(prefix="two dog", bad_words="beach, grass"), NOTHING_COVERED
    )
    same = tiny_captioner.caption(image_path, prefix="two dog", bad_words=["beach", "grass"])
    assert [answer.text for answer in steered.recaptions] == [same.text]


def test_without_a_request_there_are_no_other_captions(tiny_captioner: ImageCaptioner, session: Session) -> None:
    assert recaption(tiny_captioner, session, CaptionRequest(seed=3), NOTHING_COVERED).recaptions == ()


def test_what_is_covered_is_not_seen(tiny_captioner: ImageCaptioner, session: Session) -> None:
    answer = recaption(tiny_captioner, session, CaptionRequest(), ~NOTHING_COVERED).recaptions[0]
    flat = session.pixels.mean((1, 2), keepdim=True).expand_as(session.pixels)
    generation_config = tiny_captioner.prepare_generation_config({})
    blind = tiny_captioner.caption_features(tiny_captioner.encode(flat[None]), generation_config)[0]
    assert answer.text == blind.text != session.caption.text


def test_lengths_are_what_they_say(tiny_captioner: ImageCaptioner, session: Session) -> None:
    words = len(session.caption.words)
    longer = recaption(tiny_captioner, session, CaptionRequest(length=LONGER), NOTHING_COVERED).recaptions[0]
    assert len(longer.words) > words
    try:
        shorter = recaption(tiny_captioner, session, CaptionRequest(length=SHORTER), NOTHING_COVERED).recaptions[0]
    except ConfigError as error:
        assert "no shorter caption" in str(error)
    else:
        assert len(shorter.words) < words and shorter.finished


def test_the_bundled_model_is_shorter_longer_and_unsure_of_what_it_has_not_seen() -> None:
    captioner, examples = ImageCaptioner.from_pretrained(), data_path("space") / "examples"
    session = start_session(captioner, examples / "rocket.jpg")
    words = len(session.caption.words)
    shorter, longer = (
        recaption(captioner, session, CaptionRequest(length=length), NOTHING_COVERED).recaptions[0]
        for length in (SHORTER, LONGER)
    )
    assert len(shorter.words) < words < len(longer.words)
    assert shorter.finished and longer.finished
    for caption in (session.caption, start_session(captioner, examples / "chelsea.jpg").caption):
        assert "Low confidence" in confidence_note(caption)


def test_without_the_camera_in_view_the_bundled_model_names_none() -> None:
    """What the README's animation shows."""
    captioner = ImageCaptioner.from_pretrained()
    session = start_session(captioner, data_path("space") / "examples" / "camera.jpg")
    words = [word.text for word in session.caption.words]
    covered = most_attended(session.caption.words[words.index("camera")].attention)
    caption = recaption(captioner, session, CaptionRequest(), covered).newest
    assert "camera" not in caption.text.split()


def test_a_caption_of_low_confidence_comes_with_a_warning() -> None:
    notes = [confidence_note(dataclasses.replace(caption_of("a dog"), confidence=sure)) for sure in (0.1, 0.9, None)]
    assert "Low confidence (10 %)" in notes[0]
    assert notes[1].startswith("Confidence 90 %") and notes[2] == ""


def test_three_captions_differ_and_each_draw_is_another(tiny_captioner: ImageCaptioner, session: Session) -> None:
    several = recaption(tiny_captioner, session, CaptionRequest(several=True), NOTHING_COVERED).recaptions
    assert len({answer.text for answer in several}) == 3
    varied = recaption(tiny_captioner, session, CaptionRequest(several=True, style=MORE_VARIED), NOTHING_COVERED)
    assert len({caption.text for caption in varied.recaptions}) == 3
    drawn = {
        recaption(tiny_captioner, session, CaptionRequest(style=MORE_VARIED, seed=seed), NOTHING_COVERED)
        .recaptions[0]
        .text
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_the_three_captions_are_those_that_differ_most() -> None:
    texts = ["a dog runs", "a dog runs fast", "a dog runs away", "two children play", "a man climbs a rock"]
    chosen = [caption.text for caption in most_different([caption_of(text) for text in texts])]
    assert chosen[0] == "a dog runs" and set(chosen[1:]) == {"two children play", "a man climbs a rock"}


def test_a_word_that_the_model_does_not_know_is_named(tiny_captioner: ImageCaptioner, session: Session) -> None:
    with pytest.raises(ConfigError, match="doesn't know “submarine”"):
        recaption(tiny_captioner, session, CaptionRequest(prefix="two submarine"), NOTHING_COVERED)


def test_a_request_that_makes_no_sense_is_a_sentence_without_names_of_code(
    tiny_captioner: ImageCaptioner, session: Session
) -> None:
    with pytest.raises(ConfigError) as error:
        recaption(tiny_captioner, session, CaptionRequest(prefix="dog " * 30), NOTHING_COVERED)
    assert str(error.value) == "The caption cannot start with 30 words. Use at most 20."
    hyphenated = CaptionRequest(bad_words="red-shirt, man", length=LONGER, prefix="dog " * 20)
    assert recaption(tiny_captioner, session, hyphenated, NOTHING_COVERED).newest.text.startswith("dog dog")


def test_an_image_of_a_few_pixels_is_refused(tiny_captioner: ImageCaptioner) -> None:
    with pytest.raises(ImageError, match="only 1 x 1 pixels"):
        start_session(tiny_captioner, Image.new("RGB", (1, 1)))


def test_an_alternative_begins_another_caption(tiny_captioner: ImageCaptioner, session: Session) -> None:
    for label, beginning in alternatives(tiny_captioner, session.caption, 1):
        assert beginning.split()[0] == session.caption.words[0].text
        assert label.startswith(f"{beginning.split()[1]} (") and label.endswith(" %)")
        answer = recaption(tiny_captioner, session, CaptionRequest(prefix=beginning), NOTHING_COVERED).recaptions[0]
        assert answer.text.startswith(beginning)


def test_the_most_attended_fifth_is_a_fifth() -> None:
    attention = np.zeros((10, 10), np.float32)
    attention[2:4] = np.arange(1, 21).reshape(2, 10)
    cells = most_attended(attention)
    assert cells.shape == (MASK_SIZE, MASK_SIZE)
    assert cells.mean() == pytest.approx(0.2, abs=0.03)
    assert cells[8].all() and not cells[0].any()


def test_changed_words_are_marked() -> None:
    before, after = caption_of("a brown dog runs in the snow"), caption_of("a white dog runs through the deep snow")
    assert changed_words(before, after) == [False, True, False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [("a dog runs", "A dog runs."), ("a dog runs.", "A dog runs."), ("", ""), ("  who? ", "Who?")],
)
def test_an_alternative_text_is_a_sentence(caption: str, expected: str) -> None:
    assert as_sentence(caption) == expected


def test_names_and_words_are_no_markup_in_the_snippet() -> None:
    found = html_snippet('"><script>.jpg', 'a "big" <b>dog</b>')
    assert found == ('<img src="&quot;&gt;&lt;script&gt;.jpg" alt="a &quot;big&quot; &lt;b&gt;dog&lt;/b&gt;">')


def test_a_large_image_is_shown_small_and_read_whole(tiny_captioner: ImageCaptioner) -> None:
    session = start_session(tiny_captioner, Image.new("RGB", (4000, 3000), "red"))
    with Image.open(io.BytesIO(session.image)) as image:
        assert image.size == (1280, 960)
    assert session.mean_colour == (255, 0, 0)
    assert session.pixels.shape == torch.Size((3, 64, 64))
