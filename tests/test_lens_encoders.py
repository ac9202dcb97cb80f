"""Classifiers split into encoder and head, and the built-in CIFAR nets at their accuracies."""

import importlib
import logging
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from conspec.lens.config import LensConfig
from conspec.lens.encoders import load_classifier, split
from conspec.lens.export import export_head
from conspec.lens.images import open_images
from conspec.lens.onnx_files import open_session, run
from conspec.lens.plugins import load_attribute, load_weights
from conspec.lens.preprocess import Preprocess
from conspec.specs.errors import BadFile, BadUsage

DATA = Path(__file__).parents[2] / "shared" / "data"
SMALL = Preprocess(8, 8)


def encoder(width: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def settings(model: str, weights: Path | str | None = None, **more: object) -> LensConfig:
    chosen = None if weights is None else str(weights)
    return LensConfig(images="", vlm="", model=model, weights=chosen, **more)  # type: ignore[arg-type]


class Functional(nn.Module):
    """Something happens between its modules that no module does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc1, self.fc2 = encoder(), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.fc1(self.body(x)))
        logits: Tensor = self.fc2(hidden)
        return logits


def test_the_head_starts_at_the_last_linear_layer() -> None:
    net = nn.Sequential(encoder(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    found = split(net, SMALL, "net")
    assert list(found.head) == [net[3]]
    assert found.outputs == 3


def test_the_head_starts_where_the_user_says() -> None:
    last = nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
    net = nn.Sequential(encoder(), nn.Linear(5, 4), last)
    assert list(split(net, SMALL, "net", "1").head) == [net[1], *last]
    assert list(split(net, SMALL, "net", "2").head) == [*last]
    with pytest.raises(BadUsage, match="no module 'fc'"):
        split(net, SMALL, "net", "fc")


def test_embeddings_are_what_the_head_is_given() -> None:
    net = nn.Sequential(encoder(), nn.ReLU(), nn.Linear(5, 3), nn.Identity())
    pictures = [picture() for picture in [random_picture] * 4]
    z = split(net, SMALL, "net").embed(pictures)
    with torch.no_grad():
        np.testing.assert_allclose(net[2](z), net(SMALL(pictures)), rtol=1e-5, atol=1e-6)


def random_picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng().integers(0, 255, (9, 8, 3), np.uint8))


def test_what_happens_outside_modules_is_noticed() -> None:
    torch.manual_seed(0)
    assert split(Functional(), SMALL, "net").outputs == 3
    with pytest.raises(BadFile, match="something runs between them"):
        split(Functional(), SMALL, "net", "fc1")


def test_models_without_a_head_are_refused() -> None:
    with pytest.raises(BadFile, match="no linear layer"):
        split(encoder(), SMALL, "net")
    tokens = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(2), nn.Linear(1, 3))
    with pytest.raises(BadFile, match="one vector for each picture"):
        split(tokens, SMALL, "net")
    idle = Functional()
    idle.extra = nn.Linear(2, 2)
    with pytest.raises(BadFile, match="never ran"):
        split(idle, SMALL, "net", "extra")


def test_a_users_model(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
        "net, number = make(), 3\n"
    )
    for name in ("make", "net"):
        found = load_classifier(settings(f"{code}:{name}", preprocess=SMALL), 3)
        assert found.outputs == 3
    with pytest.raises(BadFile, match=r"3 logits for 4 classes; name the .* 3 .*--classes a,b"):
        load_classifier(settings(f"{code}:make", preprocess=SMALL), 4)
    with pytest.raises(BadUsage, match="is not a torch module"):
        load_classifier(settings(f"{code}:number", preprocess=SMALL), 3)
    with pytest.raises(BadUsage, match=r"how pictures are prepared.*\[preprocess\].*--config"):
        load_classifier(settings(f"{code}:make"), 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", r"expected FILE\.py:NAME"),
        ("resnet20", "a classifier may also be timm:NAME, torchvision:NAME or cifar:NAME"),
        ("tv:resnet18", "no module named 'tv'; expected .* torchvision:NAME"),
        ("nowhere.py:make", r"nowhere\.py: no such file"),
        ("no_such_package.x:y", "no module named 'no_such_package'"),
        ("torch.nn:Nothing", "torch.nn has no 'Nothing'"),
    ],
)
def test_import_paths_that_lead_nowhere(spec: str, message: str) -> None:
    with pytest.raises(BadUsage, match=message):
        load_attribute(spec)


def test_weights_are_safetensors_that_fit(tmp_path: Path) -> None:
    net, path = nn.Linear(3, 2), tmp_path / "w.safetensors"
    save_file(nn.Linear(3, 2).state_dict(), path)
    before = net.weight.clone()
    load_weights(net, path)
    assert not torch.equal(net.weight, before)
    with pytest.raises(BadFile, match="do not fit the model"):
        load_weights(nn.Linear(4, 2), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadFile, match="not a valid safetensors"):
        load_weights(net, path)
    with pytest.raises(BadFile, match="no such file"):
        load_weights(net, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.pth", "x.bin", "x"):
        with pytest.raises(BadFile, match="run code when"):
            load_weights(net, tmp_path / name)


@pytest.mark.parametrize("spec", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_models_of_timm_and_torchvision(spec: str, tmp_path: Path) -> None:
    kind, _, name = spec.partition(":")
    library = importlib.import_module("timm" if kind == "timm" else "torchvision.models")
    make = library.create_model if kind == "timm" else library.get_model
    torch.manual_seed(1)
    weights = tmp_path / "w.safetensors"
    save_file(make(name, num_classes=4).state_dict(), weights)
    found = load_classifier(settings(spec, weights), 4)
    z = found.embed([random_picture()])
    assert z.shape == (1, found.head[0].in_features)
    export_head(found.head, z)
    with pytest.raises(BadUsage, match="give its weights with --weights"):
        load_classifier(settings(spec), 4)
    with pytest.raises(BadUsage, match="has no model"):
        load_classifier(settings(f"{kind}:no_such_net", weights), 4)


@pytest.mark.parametrize(
    ("spec", "maker", "error"),
    [
        ("timm:test_resnet", "timm.create_model", FileNotFoundError("not\nin the cache")),
        ("torchvision:resnet18", "torchvision.models.get_model", URLError("no such host")),
        ("torchvision:resnet18", "torchvision.models.get_model", HTTPException("cut off")),
    ],
)
def test_weights_that_cannot_be_fetched(
    spec: str,
    maker: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        logging.error("a library's own words")  # as open_clip does
        raise error

    monkeypatch.setattr(maker, fail)
    message = f"cannot fetch the weights of {spec} .no network.*safetensors file with --weights"
    with pytest.raises(BadFile, match=message) as caught:
        load_classifier(settings(spec, "hub"), 4)
    assert "\n" not in str(caught.value)
    assert caplog.text == ""
    logging.error("heard again")
    assert "heard again" in caplog.text


def test_built_in_models_have_ten_classes_and_local_weights() -> None:
    for bad, classes in (("hub", 10), ("x.safetensors", 9)):
        with pytest.raises(BadUsage, match="local file"):
            load_classifier(settings("cifar:resnet20", bad), classes)
    with pytest.raises(BadUsage, match="known: resnet20"):
        load_classifier(settings("cifar:resnet21", "x"), 10)


# What 10,000 test images give (DATA.md), and how many of 200 are surely right: 5 deviations.
@pytest.mark.parametrize(
    ("name", "accuracy"), [("resnet20", 0.810), ("resnet2b", 0.687), ("resnet4b", 0.765)]
)
def test_built_in_models_reach_their_accuracy(name: str, accuracy: float) -> None:
    weights, images = DATA / "weights" / f"{name}-cifar10.safetensors", DATA / "cifar10-test.tar"
    if not (weights.exists() and images.exists()):
        pytest.skip(f"{DATA} is not there: CIFAR-10 may not be shipped with conspec")
    chosen = open_images(str(images)).pictures[::50]
    classes = sorted({str(picture.label) for picture in chosen})
    found = load_classifier(settings(f"cifar:{name}", weights), 10)
    z = found.embed([picture.load() for picture in chosen])
    head = open_session(export_head(found.head, z), "head")
    predicted = run(head, z.numpy(), 10, "head").argmax(axis=1)
    label = [classes.index(str(picture.label)) for picture in chosen]
    deviation = (accuracy * (1 - accuracy) / len(chosen)) ** 0.5
    assert abs((predicted == label).mean() - accuracy) < 5 * deviation
    assert z.min() >= 0
