"""Every backbone gives the grid that it declares, from the weights that it was given, and from no others."""

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from hf_captioner import CaptionerConfig, ConfigError
from hf_captioner.errors import BackboneError, MissingExtraError
from hf_captioner.modeling.backbone import BUILD_OPTIONS
from hf_captioner.modeling.encoder import Encoder, _cut, _folded

GRIDS = [
    ("resnet50", 224, 2048, (7, 7), 32.0),
    ("resnet18", 224, 512, (7, 7), 32.0),
    ("vgg16", 224, 512, (7, 7), 32.0),
    ("inception_v3", 299, 2048, (8, 8), 299 / 8),
    ("timm:tf_efficientnet_lite2", 260, 1280, (9, 9), 260 / 9),
]


@pytest.mark.parametrize(("name", "size", "channels", "side", "stride"), GRIDS)
def test_declared_channels_and_stride_are_the_real_ones(
    name: str, size: int, channels: int, side: tuple[int, int], stride: float
) -> None:
    with torch.device("meta"):
        encoder = Encoder(CaptionerConfig(10, encoder=name, image_size=size))
        grid = encoder(torch.zeros(2, 3, size, size))
    assert (encoder.channels, encoder.stride) == (channels, stride)
    assert grid.values.shape == (2, side[0] * side[1], channels)
    assert (grid.height, grid.width) == side == (encoder.height, encoder.width)


def randomized_resnet18() -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18().eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone


def test_the_grid_is_torchvisions_row_by_row(tmp_path: Path) -> None:
    backbone = randomized_resnet18()
    save_file(backbone.state_dict(), tmp_path / "resnet18.safetensors")
    encoder = Encoder(CaptionerConfig(10, encoder="resnet18", encoder_layer="layer3", image_size=64))
    encoder.load_backbone(tmp_path / "resnet18.safetensors")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        stem = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(pixels))))
        expected = backbone.layer3(backbone.layer2(backbone.layer1(stem)))
        grid = encoder(pixels)
    torch.testing.assert_close(grid.values[:, 1 * 4 + 2], expected[:, :, 1, 2], atol=1e-4, rtol=1e-4)


def test_inception_gets_pixels_on_its_own_scale(tmp_path: Path) -> None:
    """Its weights expect (x - 0.5) / 0.5, which torchvision derives from pixels normalised as for ImageNet."""
    torch.manual_seed(0)
    backbone = torchvision.models.inception_v3(init_weights=False, transform_input=True).eval()
    save_file(backbone.state_dict(), tmp_path / "inception.safetensors")
    encoder = Encoder(CaptionerConfig(10, encoder="inception_v3", encoder_layer="Conv2d_1a_3x3", image_size=96))
    encoder.load_backbone(tmp_path / "inception.safetensors")
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected = backbone.Conv2d_1a_3x3(backbone._transform_input(pixels))
        found = encoder(pixels).values
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_a_size_that_the_network_cannot_read_is_said() -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match="image_size is 64; expected a size that inception_v3"):
        Encoder(CaptionerConfig(10, encoder="inception_v3", image_size=64))


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    encoder = Encoder(CaptionerConfig(10, encoder="resnet18", image_size=64))
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="not torchvision's resnet18"):
        encoder.load_backbone(tmp_path / "other.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04not a tensor file")
    with pytest.raises(ConfigError, match="expected a safetensors file"):
        encoder.load_backbone(tmp_path / "pickle.safetensors")


def test_a_node_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"layer9.*layer4"):
        Encoder(CaptionerConfig(10, encoder="resnet18", encoder_layer="layer9"))
    with pytest.raises(ConfigError, match=r"'fc'.*layer4"):
        Encoder(CaptionerConfig(10, encoder="resnet18", encoder_layer="fc"))
    with pytest.raises(ConfigError, match=r"'features.31'.*29, 30"):
        Encoder(CaptionerConfig(10, encoder="vgg16", encoder_layer="features.31"))


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "inception_v3"])
def test_a_cut_network_is_torchvisions_as_far_as_it_goes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = torchvision.models.get_model(name, weights=None, **BUILD_OPTIONS.get(name, {})).eval()
    save_file(backbone.state_dict(), tmp_path / "backbone.safetensors")
    encoder = Encoder(CaptionerConfig(10, encoder=name, image_size=96))
    encoder.load_backbone(tmp_path / "backbone.safetensors")
    grids: list[torch.Tensor] = []
    backbone.avgpool.register_forward_hook(lambda module, given, result: grids.append(given[0]))
    with torch.no_grad():
        pixels = torch.randn(1, 3, 96, 96)
        found = encoder(pixels).values
        backbone(pixels)
    expected = grids[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_encoders_are_built_while_others_work() -> None:
    """A page loads a second model while it captions with the first."""
    encoder = Encoder(CaptionerConfig(10, encoder="resnet18", image_size=64))
    pixels, built = torch.randn(1, 3, 64, 64), threading.Event()
    with torch.no_grad():
        expected = encoder(pixels).values

    def work() -> int:
        count = 0
        with torch.no_grad():
            while not built.is_set():
                assert torch.equal(encoder(pixels).values, expected)
                count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        working = threads.submit(work)
        for _ in range(3):
            Encoder(CaptionerConfig(10, encoder="resnet18", image_size=64))
        built.set()
        assert working.result() > 0


def test_only_what_is_asked_for_is_trainable() -> None:
    encoder = Encoder(CaptionerConfig(10, encoder="resnet18", image_size=64))
    encoder.unfreeze_from(None)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.unfreeze_from("layer3")
    trainable = {name.partition(".")[0] for name, p in encoder.network.named_parameters() if p.requires_grad}
    assert trainable == {"layer3", "layer4"}
    with pytest.raises(ConfigError, match="layer7"):
        encoder.unfreeze_from("layer7")


def test_training_mode_changes_no_output() -> None:
    encoder = Encoder(CaptionerConfig(10, encoder="resnet18", image_size=64))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        frozen, training = encoder.eval()(pixels), encoder.train()(pixels)
    torch.testing.assert_close(training.values, frozen.values, rtol=0, atol=0)


# -- timm --------------------------------------------------------------------------------------------------------------


def randomized(name: str) -> torch.nn.Module:
    """A network of timm whose batch norms do something."""
    torch.manual_seed(0)
    backbone = timm.create_model(name).eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.uniform_(tensor, -0.5, 0.5)
    return backbone


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_convnext"])
def test_the_grid_of_a_network_of_timm_is_timms(name: str, tmp_path: Path) -> None:
    backbone = randomized(name)
    save_file(backbone.state_dict(), tmp_path / "backbone.safetensors")
    encoder = Encoder(CaptionerConfig(10, encoder=f"timm:{name}", image_size=96))
    encoder.load_backbone(tmp_path / "backbone.safetensors")
    assert not list(encoder.buffers()), "batch norm is folded"
    pixels = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected, found = backbone.forward_features(pixels), encoder(pixels)
    assert (found.height, found.width) == tuple(expected.shape[2:])
    expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found.values, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_a_network_of_timm_is_cut_and_unfrozen_as_torchvisions_are() -> None:
    encoder = Encoder(CaptionerConfig(10, encoder="timm:test_efficientnet", encoder_layer="blocks.2", image_size=64))
    whole = Encoder(CaptionerConfig(10, encoder="timm:test_efficientnet", image_size=64))
    assert encoder.height > whole.height
    encoder.unfreeze_from("blocks.2")
    trainable = {name for name, p in encoder.network.named_parameters() if p.requires_grad}
    assert trainable and all(name.startswith("blocks.2.") for name in trainable)
    with pytest.raises(ConfigError, match=r"encoder_layer is 'blocks.9'; timm:test_efficientnet has the layers 0, 1"):
        Encoder(CaptionerConfig(10, encoder="timm:test_efficientnet", encoder_layer="blocks.9", image_size=64))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("test_resnet9000", r"timm .* has no model 'test_resnet9000'; timm\.list_models\(\) names"),
        ("test_vit", "makes .* of an image; expected a convolutional network|expected a size that"),
        ("convnext_xxlarge", r"has 846,471,016 parameters; expected at most 200,000,000\.$"),
        ("densenet121", "cannot be folded into one; expected a network in which every batch norm follows"),
    ],
)
def test_a_network_of_timm_that_gives_no_feature_map_is_one_sentence(name: str, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=sentence):
        Encoder(CaptionerConfig(10, encoder=f"timm:{name}"))


@pytest.mark.parametrize(
    "name",
    ["hf-hub:stranger/model", "hf_hub:stranger/model", "local-dir:/tmp", "resnet10t.c3_in1k", "../x", "", "x" * 9],
)
def test_only_timms_own_models_are_built(name: str) -> None:
    """`hf-hub:` would download a stranger's configuration, and `local-dir:` read any folder."""
    with pytest.raises(ConfigError, match=r"encoder is 'timm:|has no model 'xxxxxxxxx'"):
        Encoder(CaptionerConfig(10, encoder=f"timm:{name}"))


def test_the_weights_of_a_network_of_timm_are_a_file_in_its_own_names(tmp_path: Path) -> None:
    encoder = Encoder(CaptionerConfig(10, encoder="timm:test_resnet", image_size=64))
    with pytest.raises(
        BackboneError, match=r"test_resnet is timm's, whose weights are not downloaded; give a safetens"
    ):
        encoder.load_backbone("torchvision")
    save_file(randomized_resnet18().state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(BackboneError, match="are not timm's test_resnet"):
        encoder.load_backbone(tmp_path / "other.safetensors")
    with pytest.raises(BackboneError, match=r"expected a safetensors file of timm's test_resnet\.$"):
        encoder.load_backbone(tmp_path / "gone.safetensors")


def test_a_network_that_calls_its_modules_in_another_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = randomized("test_resnet")
    save_file(backbone.state_dict(), tmp_path / "backbone.safetensors")
    encoder = Encoder(CaptionerConfig(10, encoder="timm:test_resnet", image_size=64))
    once = type(backbone).forward_features
    monkeypatch.setattr(type(backbone), "forward_features", lambda self, x: once(self, x.flip(1)))
    with pytest.raises(BackboneError, match="timm's test_resnet is no plain chain of its modules"):
        encoder.load_backbone(tmp_path / "backbone.safetensors")


def test_without_timm_its_encoders_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("hf_captioner.errors.find_spec", lambda name: None if name == "timm" else found(name))
    with pytest.raises(MissingExtraError, match=r"The encoder timm:test_resnet needs packages .*hf-captioner\[timm\]"):
        Encoder(CaptionerConfig(10, encoder="timm:test_resnet"))


# -- weights that are not whole ----------------------------------------------------------------------------------------


def test_weights_may_end_at_the_feature_map_and_be_float16(tmp_path: Path) -> None:
    """As those of VGG-16's convolutions alone do."""
    halves = {name: value.half() for name, value in randomized_resnet18().state_dict().items() if "fc." not in name}
    save_file(halves, tmp_path / "features.safetensors")
    encoder = Encoder(CaptionerConfig(10, encoder="resnet18", image_size=64))
    encoder.load_backbone(tmp_path / "features.safetensors")
    backbone = torchvision.models.resnet18().eval()
    backbone.load_state_dict({**backbone.state_dict(), **halves})
    expected = _folded(_cut(backbone, encoder.config)).state_dict()
    torch.testing.assert_close(encoder.network.state_dict(), expected)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    del halves["layer4.1.conv2.weight"]
    save_file(halves, tmp_path / "features.safetensors")
    with pytest.raises(BackboneError, match=r"missing \['layer4.1.conv2.weight'\], unknown \[\]"):
        encoder.load_backbone(tmp_path / "features.safetensors")
