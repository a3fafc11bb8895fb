"""Every layout of captioned images gives the same records, and every fault is named."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hf_captioner.errors import DataError
from hf_captioner.training.data import Record, load_records
from hf_captioner.training.data_sets import DataSet, load_split

CAPTIONS = {
    "a.jpg": ("train", ("A dog .", "One dog runs .")),
    "b.jpg": ("validation", ("Two men, talking .",)),
    "c.jpg": ("test", ("A child", "A girl smiles")),
}


def files(folder: Path, names: list[str] | None = None) -> None:
    for name in names or list(CAPTIONS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def lines(*texts: str) -> str:
    return "\n".join(texts) + "\n"


def flickr(folder: Path) -> None:
    files(folder / "Flicker8k_Dataset")
    tokens = [f"{n}#{i}\t{text}" for n, (_, texts) in CAPTIONS.items() for i, text in enumerate(texts)]
    (folder / "Flickr8k.token.txt").write_text(lines(*tokens, "in_no_split.jpg#0\tNobody has this one ."))
    for split in ("train", "validation", "test"):
        names = [name for name, (own, _) in CAPTIONS.items() if own == split]
        (folder / f"Flickr_8k.{split}Images.txt").write_text(lines(*names))


def karpathy(folder: Path) -> None:
    files(folder / "images")
    spelled = {"train": "restval", "validation": "val", "test": "test"}
    images = [
        {"filename": name, "split": spelled[split], "sentences": [{"raw": text} for text in texts]}
        for name, (split, texts) in CAPTIONS.items()
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))


def coco(folder: Path) -> None:
    files(folder / "photos")
    (folder / "annotations").mkdir()
    for split, spelled in {"train": "train2017", "validation": "val2017", "test": "test2017"}.items():
        names = [name for name, (own, _) in CAPTIONS.items() if own == split]
        images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
        notes = [{"image_id": i, "caption": text} for i, name in enumerate(names) for text in CAPTIONS[name][1]]
        file = folder / "annotations" / f"captions_{spelled}.json"
        file.write_text(json.dumps({"images": images, "annotations": notes}))


def image_folder(folder: Path) -> None:
    for split, spelled in {"train": "train", "validation": "validation", "test": "test"}.items():
        names = [name for name, (own, _) in CAPTIONS.items() if own == split]
        files(folder / spelled, names)
        entries = [json.dumps({"file_name": name, "captions": CAPTIONS[name][1]}) for name in names]
        (folder / spelled / "metadata.jsonl").write_text(lines(*entries))


def table(folder: Path, delimiter: str = ",", name: str = "my.csv") -> None:
    files(folder / "photos")
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["path", "caption", "split"])
        writer.writerows([f"photos/{n}", text, split] for n, (split, texts) in CAPTIONS.items() for text in texts)


def tsv(folder: Path) -> None:
    table(folder, "\t", "my.tsv")


def kaggle(folder: Path) -> None:
    files(folder / "Images")
    rows = [f'{name},"{text}"' for name, (_, texts) in CAPTIONS.items() for text in texts]
    (folder / "captions.txt").write_text(lines("image,caption", *rows))


def plain(records: list[Record]) -> dict[str, tuple[str, tuple[str, ...]]]:
    assert all(record.path.is_file() for record in records)
    return {record.path.name: (record.split, record.captions) for record in records}


@pytest.mark.parametrize("layout", [flickr, karpathy, coco, image_folder, table, tsv])
def test_every_layout_gives_the_same_records(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    assert plain(load_records(tmp_path)) == CAPTIONS


def test_a_caption_file_may_be_named_itself(tmp_path: Path) -> None:
    table(tmp_path)
    assert plain(load_records(tmp_path / "my.csv")) == CAPTIONS


def test_where_no_split_is_given_images_are_split_and_stay_so(tmp_path: Path) -> None:
    kaggle(tmp_path)
    with pytest.raises(DataError, match="names no splits, and no file does"):
        load_records(tmp_path)
    assert {n: texts for n, (_, texts) in plain(load_records(tmp_path, seed=1)).items()} == {
        name: texts for name, (_, texts) in CAPTIONS.items()
    }
    names = [f"{i}.jpg" for i in range(40)]
    files(tmp_path / "Images", names)
    (tmp_path / "captions.txt").write_text(lines("image,caption", *(f"{n},A dog" for n in names for _ in range(2))))
    kept = tmp_path / "out" / "splits.json"
    first = plain(load_records(tmp_path, split_file=kept, seed=3))
    assert sorted(split for split, _ in first.values()) == ["test"] * 4 + ["train"] * 32 + ["validation"] * 4
    assert plain(load_records(tmp_path, split_file=kept, seed=99)) == first
    assert plain(load_records(tmp_path, seed=99)) != first
    with (tmp_path / "captions.txt").open("a") as file:
        file.write("a.jpg,Another\n")
    with pytest.raises(DataError, match="splits 40 images, the data has 41"):
        load_records(tmp_path, split_file=kept)
    kept.write_text(kept.read_text()[:50])
    with pytest.raises(DataError, match=r"splits\.json is not JSON"):
        load_records(tmp_path, split_file=kept)


def test_a_split_is_the_training_runs_own(tmp_path: Path) -> None:
    files(tmp_path / "data", [f"{i}.jpg" for i in range(40)])
    (tmp_path / "data" / "captions.txt").write_text(lines("image,caption", *(f"{i}.jpg,A dog" for i in range(40))))
    run, data = tmp_path / "run", DataSet(str(tmp_path / "data"))
    trained = load_records(tmp_path / "data", split_file=run / "splits.json", seed=7)
    labelled = [dataclasses.replace(record, data_set="data") for record in trained if record.split == "validation"]
    assert load_split([data], "validation", model=str(run / "best")) == labelled
    assert load_split([data], "validation", split_file=run / "splits.json") == labelled
    with pytest.raises(DataError, match="as --splits"):
        load_split([data], "validation")
    with pytest.raises(DataError, match=r"typo\.json"):
        load_split([data], "validation", split_file=run / "typo.json")
    assert not (run / "typo.json").exists()


def test_lemmas_are_no_captions_and_two_caption_files_are_too_many(tmp_path: Path) -> None:
    flickr(tmp_path)
    tokens = tmp_path / "Flickr8k.token.txt"
    (tmp_path / "Flickr8k.lemma.token.txt").write_text(tokens.read_text().replace("runs", "run"))
    assert plain(load_records(tmp_path)) == CAPTIONS
    (tmp_path / "more.token.txt").write_text(tokens.read_text())
    with pytest.raises(DataError, match=r"Flickr8k\.token\.txt, more\.token\.txt; give the one to read"):
        load_records(tmp_path)
    assert plain(load_records(tokens)) == CAPTIONS


def test_split_files_may_leave_out_the_ending(tmp_path: Path) -> None:
    flickr(tmp_path)
    for file in tmp_path.glob("*Images.txt"):
        file.write_text(file.read_text().replace(".jpg", ""))
    assert plain(load_records(tmp_path)) == CAPTIONS


def test_faults_are_named_ten_at_a_time(tmp_path: Path) -> None:
    names = [f"{i:02}.jpg" for i in range(12)]
    files(tmp_path, ["kept.jpg"])
    (tmp_path / "captions.txt").write_text(lines("image,caption", "kept.jpg,A dog", *(f"{n},A dog" for n in names)))
    with pytest.raises(DataError, match=r"missing images \(12\): 00\.jpg, .*, 09\.jpg, \.\.\.; add"):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("captions.txt", "image,caption\na.jpg,\n", r"images with an empty caption \(1\): a\.jpg;"),
        ("my.csv", "path,caption,split\na.jpg,x,train\na.jpg,y,val\n", r"images in two splits \(1\): a\.jpg;"),
        (
            "my.csv",
            "path,caption,split\na.jpg,x,train\nb.jpg,y,\n",
            r"without a split where others have one \(1\): b\.jpg;",
        ),
        ("my.csv", "path,caption,split\na.jpg,x,tset\n", "split 'tset'; expected one of train"),
        ("my.csv", "file,text\na.jpg,x\n", r"columns \['file', 'text'\]; expected `path`"),
        ("captions.txt", "image,caption\n", "holds no captions"),
        ("x.token.txt", "no tab here\n", "line 1 is 'no tab here'; expected"),
        ("metadata.jsonl", '{"text": "x"}\n', "line 1: KeyError"),
        ("dataset.json", "{}", "neither Karpathy's nor COCO's"),
        ("notes.md", "nothing", "holds 3 images and no captions to train on"),
        ("captions.txt", b"image,caption\n\xff\xfe", "cannot be read as UTF-8"),
    ],
)
def test_each_fault_is_one_sentence(tmp_path: Path, file: str, text: str | bytes, complaint: str) -> None:
    files(tmp_path)
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=complaint):
        load_records(tmp_path)


def test_a_split_without_captions_is_named(tmp_path: Path) -> None:
    flickr(tmp_path)
    with (tmp_path / "Flickr_8k.trainImages.txt").open("a") as file:
        file.write("z.jpg\n")
    with pytest.raises(DataError, match=r"images in its split files that have no caption \(1\): z\.jpg;"):
        load_records(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_records(tmp_path / "gone")
