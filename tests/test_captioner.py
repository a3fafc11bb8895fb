"""A captioner captions any number of images, each as if it were alone, and refuses what makes no sense."""

import copy
import dataclasses
import io
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hf_captioner import Caption, ConfigError, GenerationConfig, ImageCaptioner, ImageError, iter_images
from hf_captioner.config import GenerationOptions
from hf_captioner.images import ImageSource
from hf_captioner.modeling import generation

# -- captions ----------------------------------------------------------------------------------------------------------


def test_one_in_one_out_a_list_in_a_list_out(tiny_captioner: ImageCaptioner, image_paths: list[Path]) -> None:
    one = tiny_captioner.caption(image_paths[0])
    assert isinstance(one, Caption)
    assert one.text == " ".join(word.text for word in one.words)
    many = tiny_captioner.caption(tuple(image_paths))
    assert [type(caption) for caption in many] == [Caption] * 5 and many[0].text == one.text
    assert tiny_captioner.caption([]) == []
    best = tiny_captioner.caption(image_paths[0], num_return_sequences=4)
    scores = [caption.score for caption in best.candidates]
    assert best.candidates[0] is best and scores == sorted(scores, reverse=True)
    assert len({caption.text for caption in best.candidates}) == 4
    several = tiny_captioner.caption(image_paths, num_return_sequences=2)
    assert [len(caption.candidates) for caption in several] == [2] * 5
    assert one.candidates == (one,)


def test_every_form_of_an_image_is_captioned_alike(tiny_captioner: ImageCaptioner, image_paths: list[Path]) -> None:
    path = image_paths[1]
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    forms: list[ImageSource] = [
        path,
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        image,
        np.array(image),
    ]
    first, *others = tiny_captioner.caption(forms)
    for other in others:
        assert other.text == first.text
        for word, expected in zip(other.words, first.words, strict=True):
            np.testing.assert_allclose(word.attention, expected.attention, atol=1e-5)


def test_what_other_libraries_give_is_captioned_alike(tiny_captioner: ImageCaptioner, image: Image.Image) -> None:
    expected, array = tiny_captioner.caption(image).text, np.array(image)
    file = io.BytesIO()
    image.save(file, "PNG")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    clear = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    for form in (bytearray(file.getvalue()), memoryview(file.getvalue()), file, image.convert("RGBA"), clear, tensor):
        assert tiny_captioner.caption(form).text == expected
        assert [str(result) for result in tiny_captioner.stream(form for _ in range(2))] == [expected] * 2
    for form in (array.transpose(2, 0, 1), array / 255, tensor / 255, (tensor / 255).to(torch.bfloat16)):
        assert tiny_captioner.caption([form, image])[0].text == expected
    with pytest.raises(ImageError, match=r"cannot be a generator; .* any other iterable is for stream"):
        tiny_captioner.caption(path for path in [image])


def test_it_can_be_called_as_any_module(tiny_captioner: ImageCaptioner, image_path: Path) -> None:
    best = tiny_captioner(str(image_path), num_return_sequences=2)
    assert isinstance(best, Caption)
    assert best.to_dict() == tiny_captioner.caption(image_path, num_return_sequences=2).to_dict()
    assert [caption.text for caption in tiny_captioner([image_path] * 2)] == [best.text] * 2


def test_what_is_too_small_or_too_elongated_is_refused_alone_and_in_its_place_in_a_stream(
    tiny_captioner: ImageCaptioner, image: Image.Image
) -> None:
    small, long = Image.new("RGB", (1, 1)), Image.new("RGB", (5000, 100))
    for refused, sentence in ((small, "has only 1 x 1 pixels"), (long, "5000 x 100 pixels, which is too elongated")):
        with pytest.raises(ImageError, match=sentence):
            tiny_captioner.caption(refused)
    kinds = [type(result) for result in tiny_captioner.stream([small, image, long])]
    assert kinds == [ImageError, Caption, ImageError]


def test_a_word_says_how_likely_it_was_and_where_the_model_looked(
    tiny_captioner: ImageCaptioner, image: Image.Image
) -> None:
    caption = tiny_captioner.caption(image, num_beams=1, num_alternatives=3)
    assert caption.words
    for word in caption.words:
        assert word.attention.shape == (8, 8)
        assert word.attention.sum() == pytest.approx(1)
        assert len(word.alternatives) == 3
        assert word.probability <= word.alternatives[0][1] + 1e-6


def test_a_caption_does_not_depend_on_its_batch(tiny_captioner: ImageCaptioner, image_paths: list[Path]) -> None:
    alone = [tiny_captioner.caption(path) for path in image_paths]
    for batch_size in (2, 3, 5):
        together = tiny_captioner.caption(image_paths, batch_size=batch_size)
        assert [caption.text for caption in together] == [caption.text for caption in alone]
        assert [caption.score for caption in together] == pytest.approx([caption.score for caption in alone], abs=1e-4)
    options: dict[str, Any] = {"do_sample": True, "seed": 7, "num_return_sequences": 3}
    drawn_alone = [tiny_captioner.caption(path, **options) for path in image_paths]
    drawn = tiny_captioner.caption(image_paths, **options)
    assert [[c.text for c in best.candidates] for best in drawn] == [
        [c.text for c in best.candidates] for best in drawn_alone
    ]


def test_a_device_that_is_seldom_looked_at_says_the_same(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[dict[str, Any]] = [{}, {"num_beams": 1}, {"do_sample": True, "num_return_sequences": 3}]
    with torch.no_grad():
        tiny_captioner.decoder.output.bias[tiny_captioner.tokenizer.end_id] += 7.0  # each ends at another word
    expected = [tiny_captioner.caption(image_paths, **mode) for mode in modes]
    assert all(len({len(caption.words) for caption in captions}) > 2 for captions in expected)
    monkeypatch.setattr(generation, "words_between_looks", lambda device: 8)
    for mode, captions in zip(modes, expected, strict=True):
        for caption, other in zip(captions, tiny_captioner.caption(image_paths, **mode), strict=True):
            assert [c.text for c in caption.candidates] == [c.text for c in other.candidates]
            assert caption.score == pytest.approx(other.score, abs=1e-5)


def test_the_checkpoints_own_settings_hold_where_nothing_else_is_asked(
    tiny_captioner: ImageCaptioner, image: Image.Image
) -> None:
    tiny_captioner.generation_config = GenerationConfig(max_length=4, prefix="two children")
    caption = tiny_captioner.caption(image, min_length=4)
    assert len(caption.words) == 4 and caption.text.startswith("two children ")
    assert len(tiny_captioner.caption(image, max_length=6, min_length=6, prefix="").words) == 6


def test_prefix_and_bad_words(tiny_captioner: ImageCaptioner, image: Image.Image) -> None:
    plain = tiny_captioner.caption(image, min_length=3)
    word = plain.words[2].text
    steered = tiny_captioner.caption(image, prefix="A brown dog,", bad_words=[word, "zebra"], min_length=6)
    assert steered.text.startswith("a brown dog ")
    assert word not in steered.text.split()[3:]
    assert word not in {text for place in steered.words for text, _ in place.alternatives}
    assert tiny_captioner.caption(image, bad_words=word).text == tiny_captioner.caption(image, bad_words=[word]).text
    assert word not in tiny_captioner.caption(image, bad_words=word, min_length=3).text.split()


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"beam": 3}, TypeError, r"has no beam; it has the fields num_beams, num_return_sequences, length_penalty"),
        ({"prefix": "a zebra jumps 7"}, ConfigError, r"The model doesn't know 'zebra', '7' of the prefix"),
        ({"prefix": "a dog jumps", "max_length": 2}, ConfigError, r"prefix has 3 words; expected at most"),
        ({"bad_words": ["red shirt"]}, ConfigError, r"'red shirt', which is more than one word"),
        ({"bad_words": "red shirt"}, ConfigError, r"'red shirt', which is more than one word"),
        ({"bad_words": 5}, ConfigError, r"bad_words is 5; expected tuple\[str, \.\.\.\]"),
        ({"num_beams": 10_000}, ConfigError, r"num_beams is 10000; expected 1 to 100"),
        (
            {"num_beams": 2, "num_return_sequences": 3},
            ConfigError,
            r"num_return_sequences is 3; expected at most num_beams \(2\)",
        ),
        ({"temperature": 0.0}, ConfigError, r"temperature is 0\.0; expected more than 0"),
        ({"batch_size": 0}, ConfigError, r"batch_size is 0; expected at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(
    tiny_captioner: ImageCaptioner, options: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        tiny_captioner.stream(iter(["there is no such file.jpg"]), **options)


def test_progress_goes_to_stderr(
    tiny_captioner: ImageCaptioner, image: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_captioner.caption([image] * 3, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err
    tiny_captioner.caption([image] * 3)
    assert capsys.readouterr() == ("", "")


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_keeps_the_order_and_a_bad_image_its_place(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [tmp_path / "broken.jpg", *image_paths[:3], tmp_path / "none.jpg", *image_paths[3:]]
    expected = [caption.text for caption in tiny_captioner.caption(image_paths)]
    for batch_size in (1, 2, 32):
        results = list(tiny_captioner.stream(iter(paths), batch_size=batch_size))
        bad = [index for index, result in enumerate(results) if isinstance(result, ImageError)]
        assert bad == [0, 4]
        assert "broken.jpg" in str(results[0]) and "none.jpg" in str(results[4])
        assert [result.text for result in results if isinstance(result, Caption)] == expected
    assert list(tiny_captioner.stream([])) == []
    with pytest.raises(ImageError, match=r"none\.jpg"):
        tiny_captioner.caption([*image_paths, tmp_path / "none.jpg"])


def test_a_stream_reads_at_most_two_batches_ahead_and_stops_when_left(
    tiny_captioner: ImageCaptioner, image: Image.Image
) -> None:
    read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal read
        while True:
            read += 1
            yield image

    stream = tiny_captioner.stream(endless(), batch_size=3, num_beams=1)
    assert read == 0
    for taken in range(1, 8):
        assert isinstance(next(stream), Caption)
        assert read <= taken + 2 * 3
    stream.close()
    assert read <= 7 + 2 * 3


def test_a_path_a_folder_a_list_and_rows_are_streamed_alike(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path
) -> None:
    expected = [caption.text for caption in tiny_captioner.caption(image_paths)]
    rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}} for path in image_paths]
    for images in (tmp_path, str(tmp_path), image_paths, rows, iter_images(tmp_path)):
        assert [str(result) for result in tiny_captioner.stream(images)] == expected
    assert [str(result) for result in tiny_captioner.stream(image_paths[0])] == expected[:1]
    with pytest.raises(TypeError, match="put a single image into a list"):
        tiny_captioner.stream(image_paths[0].read_bytes())


# -- an object like any other ------------------------------------------------------------------------------------------


def test_pickled_and_copied_after_captioning_it_captions_the_same(
    tiny_captioner: ImageCaptioner, image: Image.Image
) -> None:
    before = tiny_captioner.caption(image).to_dict(attention=True)
    for again in (pickle.loads(pickle.dumps(tiny_captioner)), copy.deepcopy(tiny_captioner)):
        assert again.caption(image).to_dict(attention=True) == before
        assert again.decoder.output.weight is again.decoder.embedding.weight
        assert again.decoder.embedding.weight is not tiny_captioner.decoder.embedding.weight
    caption = pickle.loads(pickle.dumps(tiny_captioner.caption(image)))
    assert caption.to_dict(attention=True) == before


def test_spawned_processes_caption_the_same(saved_captioner: ImageCaptioner, image_paths: list[Path]) -> None:
    expected = [caption.text for caption in saved_captioner.caption(image_paths[:2])]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert [caption.text for caption in pool.map(saved_captioner.caption, image_paths[:2])] == expected


def test_many_threads_get_what_one_gets(tiny_captioner: ImageCaptioner, image_paths: list[Path]) -> None:
    expected = [tiny_captioner.caption(path).text for path in image_paths]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda path: tiny_captioner.caption(path).text, image_paths * 8))
    assert found == expected * 8


def test_a_caption_remembers_its_image_and_shows_itself_in_a_notebook(
    tiny_captioner: ImageCaptioner, image_path: Path
) -> None:
    caption = tiny_captioner.caption(image_path, num_return_sequences=2)
    assert caption.image is image_path and caption.candidates[1].image is image_path
    with Image.open(image_path) as opened:
        assert caption.overlay(0).size == opened.size
    shown = caption._repr_html_()
    assert shown.startswith('<img alt="') and caption.text in shown and "base64," in shown
    assert "<img" not in dataclasses.replace(caption, image=None)._repr_html_()


def test_devices_and_dtypes_are_named_as_in_pytorch(checkpoint: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(checkpoint, device="cpu", dtype="bfloat16")
    assert (captioner.device.type, captioner.dtype) == ("cpu", torch.bfloat16)
    assert ImageCaptioner.from_pretrained(checkpoint, dtype=torch.float16).dtype == torch.float16
    auto = ImageCaptioner.from_pretrained(checkpoint)
    assert (auto.device.type, auto.dtype) == ("cuda" if torch.cuda.is_available() else "cpu", torch.float32)
    for options, sentence in (
        ({"device": "gpu"}, "device is 'gpu', which cannot be used here; expected auto"),
        ({"dtype": "int4"}, "dtype is 'int4'; expected auto, float32, bfloat16, float16, int8"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            ImageCaptioner.from_pretrained(checkpoint, **options)
    with pytest.raises(TypeError, match="has no devise"):
        ImageCaptioner.from_pretrained(checkpoint, devise="cpu")


def test_the_keywords_for_type_checkers_are_the_fields() -> None:
    assert set(GenerationOptions.__annotations__) == {field.name for field in dataclasses.fields(GenerationConfig)}
