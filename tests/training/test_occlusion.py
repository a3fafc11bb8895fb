"""The occlusion test hides what it says it hides, and tells a captioner that looks from one that does not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_captioner import Caption, ImageCaptioner, Word
from hf_captioner.config import FIFTHS
from hf_captioner.hub.card import is_generated
from hf_captioner.training.data import Record
from hf_captioner.training.occlusion import _hidden_cells, main, occlude
from tests.conftest import SENTENCES, write_table


def test_a_fifth_is_hidden_the_most_attended_and_the_least() -> None:
    attention = np.arange(100, dtype=np.float32).reshape(10, 10)
    caption = Caption("dog", (Word("dog", 1.0, attention / attention.sum(), ()),), 0.0)
    most, chance, least = _hidden_cells(caption, 0, torch.Generator().manual_seed(0))
    assert most.nonzero().flatten().tolist() == list(range(80, 100))
    assert least.nonzero().flatten().tolist() == list(range(20))
    assert chance.sum() == 20 and not torch.equal(chance, most)


def test_where_nothing_is_looked_at_nothing_falls(tiny_captioner: ImageCaptioner, photograph_paths: list[Path]) -> None:
    records = [Record(path, (SENTENCES[0],), "dev") for path in photograph_paths]
    looking = occlude(tiny_captioner, records)
    assert looking[FIFTHS[0]].words > 0
    assert looking[FIFTHS[0]].after != pytest.approx(looking[FIFTHS[0]].before, rel=1e-4)
    with torch.no_grad():
        for parameter in tiny_captioner.decoder.project.parameters():
            parameter.zero_()
    blind = occlude(tiny_captioner, records)
    for name in FIFTHS:
        assert blind[name].after == pytest.approx(blind[name].before, rel=1e-4)
        assert blind[name].changed == 0 and "| 0.0 | 0.0 |" in blind[name].row(name)


def test_the_command_prints_a_row_for_each_way_of_hiding(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(write_table(tmp_path, ["dev"] * 3)), "--model", str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {name} | 0." in printed for name in FIFTHS)
    assert "Of the mean photograph it says: " in printed


def test_the_figures_go_into_the_card(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    flags = ["--data", str(write_table(tmp_path, ["dev"])), "--model", str(own), "--write"]
    assert main([*flags, "--limit", "1"]) == 1
    assert "leave out --limit" in capsys.readouterr().err
    assert main(flags) == 0
    found = ImageCaptioner.from_pretrained(own).config.occlusion
    assert found is not None and found.photographs == 1 and set(found.hidden) == set(found.changed) == set(FIFTHS)
    card = (own / "README.md").read_text()
    assert "## Is the attention true?" in card and f"| most attended fifth | {found.hidden[FIFTHS[0]]:.3f} |" in card
    assert is_generated(card)
