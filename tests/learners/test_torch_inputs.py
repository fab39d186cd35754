"""Memory layout of what a net is given: it decides the kernels, and so the seconds."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edge_client.learners.torch.inputs import Prepare  # noqa: E402 - torch first

SCALE = (np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}


def prepare(*, channels_last: bool) -> Prepare:
    return Prepare(SCALE, flattens=False, channels_last=channels_last, device=torch.device("cpu"))


def images(n: int = 4) -> Any:  # a tensor
    return torch.randint(0, 256, (n, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels_last", [True, False])
def test_views_reach_the_net_in_its_own_layout_whatever_theirs_is(channels_last: bool) -> None:
    made, x = prepare(channels_last=channels_last), images()
    for view in (made.pixels(x), made.pixels(x).contiguous(), made.pixels(x).clone()):
        given = made.normalised(view, x.dtype)
        assert given.is_contiguous(memory_format=LAYOUTS[channels_last])
        torch.testing.assert_close(given, (x.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)


def test_images_as_they_lie_are_not_copied_for_channels_last() -> None:
    x = images().float()
    assert prepare(channels_last=True)(x).data_ptr() == x.data_ptr()
