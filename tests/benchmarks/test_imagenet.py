"""torchvision's weights as a backbone for pixels in [0, 1]: the same net but at the edge, and what cannot be read."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from benchmarks import imagenet  # noqa: E402 - torch first
from common import models  # noqa: E402
from common.errors import EXIT_CONFIG, EXIT_DATA  # noqa: E402
from common.method import ModelSpec  # noqa: E402


def test_mean_and_deviation_move_into_the_first_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    theirs.bn1.running_mean.normal_()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    to = tmp_path / "backbone.npz"
    assert imagenet.main(["resnet18", str(to), "--from", str(tmp_path / "resnet18.pth")]) == 0
    with np.load(to) as arrays:
        found = dict(arrays)
    expected = models.load(ModelSpec("resnet18", {"stem": "large"}), 0).parameters()
    assert {name: array.shape for name, array in found.items()} == {name: spec.shape for name, spec in expected.items()}
    pixels = torch.rand(2, 3, 40, 40)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (imagenet.MEAN, imagenet.STD))
    with torch.no_grad():
        normalised = theirs.bn1(theirs.conv1((pixels - mean) / std))
        theirs.load_state_dict({n: torch.from_numpy(a) for n, a in found.items()}, strict=False)
        ours = theirs.bn1(theirs.conv1(pixels))
    inner = slice(2, -2)
    assert float((ours - normalised)[..., inner, inner].abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [(b"none", EXIT_DATA, "cannot read"), (None, EXIT_CONFIG, "no tensor 'conv1.weight'")],
)
def test_what_is_no_resnet_is_said(
    content: bytes | None, code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"other": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    assert imagenet.main(["resnet18", str(tmp_path / "out.npz"), "--from", str(path)]) == code
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()
