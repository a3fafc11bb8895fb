"""The occlusion test occludes what it says it occludes, and tells a captioner that looks from one that does not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_captioner import Caption, ImageCaptioner, Word
from hf_captioner.hub.card import is_generated
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS
from hf_captioner.training.data import Record
from hf_captioner.training.occlusion import _occluded_cells, main, measure_occlusion
from tests.conftest import SENTENCES, write_table


def test_a_fifth_is_occluded_the_most_attended_and_the_least() -> None:
    attention = np.arange(100, dtype=np.float32).reshape(10, 10)
    caption = Caption("dog", (Word("dog", 1.0, attention / attention.sum(), ()),), 0.0)
    most, chance, least = _occluded_cells(caption, 0, torch.Generator().manual_seed(0))
    assert most.nonzero().flatten().tolist() == list(range(80, 100))
    assert least.nonzero().flatten().tolist() == list(range(20))
    assert chance.sum() == 20 and not torch.equal(chance, most)


def test_where_nothing_is_looked_at_nothing_falls(tiny_captioner: ImageCaptioner, image_paths: list[Path]) -> None:
    records = [Record(path, (SENTENCES[0],), "validation") for path in image_paths]
    looking = measure_occlusion(tiny_captioner, records)
    assert looking[OCCLUDED_REGIONS[0]].words > 0
    assert looking[OCCLUDED_REGIONS[0]].after != pytest.approx(looking[OCCLUDED_REGIONS[0]].before, rel=1e-4)
    with torch.no_grad():
        for parameter in tiny_captioner.decoder.project.parameters():
            parameter.zero_()
    blind = measure_occlusion(tiny_captioner, records)
    for name in OCCLUDED_REGIONS:
        assert blind[name].after == pytest.approx(blind[name].before, rel=1e-4)
        assert blind[name].changed == 0 and "| 0.0 | 0.0 |" in blind[name].row(name)


def test_the_command_prints_a_row_for_each_region(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(write_table(tmp_path, ["validation"] * 3)), "--model", str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {name} | 0." in printed for name in OCCLUDED_REGIONS)
    assert "The caption of the mean image: " in printed


def test_the_figures_go_into_the_card(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    flags = ["--data", str(write_table(tmp_path, ["validation"])), "--model", str(own), "--write"]
    assert main([*flags, "--limit", "1"]) == 2
    assert "leave out --limit" in capsys.readouterr().err
    assert main(flags) == 0
    found = ImageCaptioner.from_pretrained(own).evaluation.occlusion
    assert (
        found is not None and found.images == 1 and set(found.occluded) == set(found.changed) == set(OCCLUDED_REGIONS)
    )
    card = (own / "README.md").read_text()
    assert f"| most attended fifth | {found.occluded[OCCLUDED_REGIONS[0]]:.3f} |" in card
    assert is_generated(card)
