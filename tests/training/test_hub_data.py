"""A data set of the Hub is trained on by its id, also where it is Parquet files, as `datasets` writes them."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from hf_captioner.errors import DataError
from hf_captioner.training.data import Record, load_records
from hf_captioner.training.data_sets import DataSet, load_split
from tests.conftest import SENTENCES, generated
from tests.hub.standin_hub import StandInHub, point_client_at

IMAGES = ["train", "train", "validation", "test"]
"""The split of each image."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    with StandInHub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


def png(index: int) -> bytes:
    file = io.BytesIO()
    generated(index).save(file, "PNG")
    return file.getvalue()


def image_folder() -> dict[str, bytes]:
    lines = [
        json.dumps({"file_name": f"{index}.png", "captions": [SENTENCES[index], "Again ."], "split": split})
        for index, split in enumerate(IMAGES)
    ]
    return {"metadata.jsonl": "\n".join(lines).encode(), **{f"{index}.png": png(index) for index in range(4)}}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """As `datasets` writes it: by `datasets` itself."""
    file = io.BytesIO()
    text = datasets.Value("string")
    kinds = {str: text, list: datasets.Sequence(text), dict: datasets.Image()}
    features = datasets.Features({name: kinds[type(value)] for name, value in rows[0].items()})
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    return file.getvalue()


def found(records: list[Record]) -> list[tuple[str, tuple[str, ...], bytes]]:
    return sorted((record.split, record.captions, record.path.read_bytes()) for record in records)


EXPECTED = sorted((split, (SENTENCES[i], "Again ."), png(i)) for i, split in enumerate(IMAGES))


def test_a_data_set_is_named_by_its_id(hub: StandInHub, tmp_path: Path) -> None:
    hub.dataset("me/birds", image_folder())
    assert found(load_records("me/birds")) == found(load_records("hf://datasets/me/birds")) == EXPECTED
    assert [record.split for record in load_split([DataSet("me/birds")], "validation")] == ["validation"]


def test_parquet_files_become_images_once(hub: StandInHub, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(i), "path": None}, "captions": [SENTENCES[i], "Again ."]} for i in range(4)]
    files = {f"data/{split}-00000-of-00001.parquet": [] for split in IMAGES}
    for row, split in zip(rows, IMAGES, strict=True):
        files[f"data/{split}-00000-of-00001.parquet"].append(row)
    hub.dataset("me/birds", {"README.md": b"# Birds", **{name: parquet(some) for name, some in files.items()}})
    splits = tmp_path / "run" / "splits.json"
    assert found(load_records("me/birds", split_file=splits)) == EXPECTED
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "images").rglob("*")}
    assert found(load_records("me/birds", split_file=splits)) == EXPECTED
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "images").rglob("*")} == before
    assert found(load_records("me/birds")) == EXPECTED, "without a training run"
    assert Path(load_records("me/birds")[0].path).is_relative_to(tmp_path / "home")


@pytest.mark.parametrize(
    "rows",
    [
        [{"caption": text} for text in (SENTENCES[0], "Again .")],
        [{"sentences": [SENTENCES[0], "Again ."]}],
        [{"caption_0": SENTENCES[0], "caption_1": "Again ."}],
        [{"text": text, "split": "val"} for text in (SENTENCES[0], "Again .")],
    ],
)
def test_captions_may_be_in_any_of_the_usual_columns(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    image = {"bytes": png(0), "path": "0.png"}
    (tmp_path / "some.parquet").write_bytes(parquet([{"image": image, **row} for row in rows]))
    (record,) = load_records(tmp_path, split_file=tmp_path / "out" / "splits.json", seed=1)
    assert record.captions == (SENTENCES[0], "Again .") and record.path.read_bytes() == png(0)
    assert load_records(tmp_path / "some.parquet", split_file=tmp_path / "out" / "splits.json") == [record]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"picture": [b"x"], "caption": ["a dog"]}, "has the columns picture, caption; expected `image` and one of"),
        ({"image": [b"x"], "label": ["dog"]}, "has the columns image, label; expected"),
        ({"image": [None], "caption": ["a dog"]}, "row 0 holds no image in `image`"),
        ({"image": [b"x"], "captions": [[]]}, "row 0 has no caption in captions"),
    ],
)
def test_a_table_without_images_or_captions_is_one_sentence(
    columns: dict[str, list[Any]], complaint: str, tmp_path: Path, hub: StandInHub
) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=complaint):
        load_records(tmp_path)


def test_a_broken_table_is_one_sentence(tmp_path: Path, hub: StandInHub) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_records(tmp_path)


def test_a_folder_here_is_never_looked_up(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.dataset("me/birds", {"captions.txt": b"image,caption\n"})
    (tmp_path / "me" / "birds").mkdir(parents=True)
    for name, content in image_folder().items():
        (tmp_path / "me" / "birds" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert found(load_records("me/birds")) == EXPECTED
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("me/nothing", "Data set me/nothing: .*repository on the Hub"),
        ("hf://datasets/birds", "expected hf://datasets/OWNER/NAME"),
        ("./me/birds", "does not exist"),
    ],
)
def test_what_is_not_there_is_one_sentence(hub: StandInHub, name: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        load_records(name)


def test_without_a_network_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_client_at("http://127.0.0.1:9", monkeypatch, tmp_path)  # nothing answers there
    with pytest.raises(DataError, match=r"Data set me/birds: .*the Hub was not reached"):
        load_records("me/birds")
