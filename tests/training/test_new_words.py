"""The bundled captioner learns new words, says them of pictures that it never saw, and keeps its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from hf_captioner import ImageCaptioner
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.training import metrics
from hf_captioner.training.data import Record
from hf_captioner.training.initialization import Origin
from hf_captioner.training.recipe import RECIPES, Recipe
from hf_captioner.training.trainer import Trainer

NAMES = ("blicket", "dax", "wug")
COLOURS = ("red", "green", "blue", "yellow", "black", "orange")
CAMERA = Path(__file__).parents[2] / "space" / "examples" / "camera.jpg"


def picture(name: str, colour: str, place: int) -> Image.Image:
    """A blicket is a disc, a dax a square, a wug a triangle."""
    image = Image.new("RGB", (96, 96), "white")
    left, top = 10 + 7 * (place % 4), 8 + 9 * (place // 4 % 4)
    box = (left, top, left + 45, top + 45)
    draw = ImageDraw.Draw(image)
    if name == "blicket":
        draw.ellipse(box, colour)
    elif name == "dax":
        draw.rectangle(box, colour)
    else:
        draw.polygon([(left, top + 45), (left + 22, top), (left + 45, top + 45)], colour)
    return image


def pictures(folder: Path, split: str, places: Sequence[int]) -> list[Record]:
    records = []
    for place in places:
        name, colour = NAMES[place % 3], COLOURS[place // 3 % 6]
        path = folder / f"{split}-{place}.png"
        picture(name, colour, place).save(path)
        records.append(Record(path, (f"A {colour} {name} on a white background .",), split))
    return records


class Stopped(Exception):
    pass


@pytest.mark.usefixtures("fresh_accelerate")
def test_new_words_are_said_of_pictures_that_were_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "has_java", lambda: False)  # Java takes seconds an epoch, and is tested elsewhere
    records = pictures(tmp_path, "train", range(36)) + pictures(tmp_path, "validation", range(36, 39))
    recipe, origin, out = Recipe.read(RECIPES / "further_few.yaml"), Origin(init=str(bundled_checkpoint())), tmp_path
    begun = Trainer(recipe, records, out, origin, device="cpu")
    assert {*begun.new_words.counts} == {*NAMES}
    save = begun._save

    def saved_once(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise Stopped

    monkeypatch.setattr(begun, "_save", saved_once)
    with pytest.raises(Stopped):
        begun.run()
    resumed = Trainer(recipe, records, out, origin, device="cpu")
    assert resumed.progress.epoch == 1 and len(resumed.tokenizer) == len(begun.tokenizer)
    resumed.run()

    old, new = ImageCaptioner.from_pretrained(), ImageCaptioner.from_pretrained(out / "best")
    known = len(old.tokenizer)
    assert new.tokenizer.words[:known] == old.tokenizer.words
    assert {*new.tokenizer.words[known:]} == {*NAMES}
    unseen = pictures(tmp_path, "unseen", range(40, 52))
    captions = [caption.text for caption in new.caption([record.path for record in unseen])]
    right = sum(NAMES[place % 3] in text.split() for place, text in zip(range(40, 52), captions, strict=True))
    assert right >= 6, captions
    was, now = (captioner.caption(CAMERA).text.split() for captioner in (old, new))
    assert not {*now} & {*NAMES} and len({*now} & {*was}) >= len({*was}) // 2, now
