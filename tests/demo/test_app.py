"""How the page loads models and names them, and what it says of files that it cannot read."""

from pathlib import Path

import pytest
import torch

from hf_captioner import CheckpointError, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo import app
from hf_captioner.demo.compare import load_captioner, load_error
from hf_captioner.demo.uploads import Upload, upload_error
from hf_captioner.images import open_image


def test_about_names_a_folder_without_the_servers_path(checkpoint: Path, saved_captioner: ImageCaptioner) -> None:
    card = app.about(saved_captioner, str(checkpoint))
    assert card.startswith(f"# {checkpoint.name}") and str(checkpoint.parent) not in card


def test_about_shows_a_persons_own_card_as_it_is(tiny_captioner: ImageCaptioner) -> None:
    tiny_captioner.card = "# Mine\n\nBefore\n---\nafter"
    assert app.about(tiny_captioner) == tiny_captioner.card


def test_a_device_or_dtype_that_is_not_there_is_refused_before_anything_is_served(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'abacus'"):
        app.serve(str(checkpoint), device="abacus")
    with pytest.raises(ConfigError, match="dtype is 'int3'"):
        app.serve(str(checkpoint), dtype="int3")


def test_a_compared_model_computes_as_the_page_does(checkpoint: Path) -> None:
    captioner = load_captioner(str(checkpoint), torch.device("cpu"), torch.bfloat16, folders=True)
    assert captioner.device.type == "cpu" and captioner.dtype == torch.bfloat16


def test_what_is_no_model_is_named_without_settings_of_a_command_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        ImageCaptioner.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)
    said = load_error("nobody/nothing", error.value, folders=True)
    assert said.startswith("nobody/nothing is not on this machine") and "HF_HUB_OFFLINE" not in said
    with pytest.raises(CheckpointError) as error:
        load_captioner(str(tmp_path), folders=True)
    assert f"{tmp_path} isn't a captioner: config.json" in load_error(str(tmp_path), error.value, folders=True)


def test_an_upload_that_has_expired_is_no_damaged_photo(tmp_path: Path) -> None:
    path = tmp_path / "gone.jpg"
    with pytest.raises(ImageError) as error:
        open_image(path)
    sentence = upload_error(error.value, Upload(str(path), "gone.jpg"))
    assert "deleted after 10 minutes" in sentence and str(tmp_path) not in sentence
