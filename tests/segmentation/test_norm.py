"""BatchNorm of few channels: what torch's own does, to the rounding of sums, in either layout and half precision."""

import pytest
import torch
from torch import Tensor, nn

from useg.segmentation import norm
from useg.segmentation.norm import BATCH_NORM

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
PEERS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def trained(layer: nn.Module, image: Tensor, gradient: Tensor) -> list[Tensor]:
    """Result, gradients and moments after one pass, in double precision."""
    x = image.clone().requires_grad_()
    y = layer(x)
    y.backward(gradient)
    assert all(tensor.is_contiguous(memory_format=LAST[image.ndim - 2]) for tensor in (y, x.grad))
    found = [y, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var]
    return [tensor.detach().double() for tensor in found]


def pair(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Ours, and torch's in double precision, with the same weights."""
    ours, peer = BATCH_NORM[dims](channels), PEERS[dims](channels)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 1.5)
        ours.bias.normal_()
    peer.load_state_dict(ours.state_dict())
    return ours, peer.double()


@pytest.mark.parametrize("channels", [1, 3, 8, 9, 12, 16, 24, 40])
@pytest.mark.parametrize(("dims", "space"), [(2, (32, 16)), (2, (7, 5)), (3, (4, 8, 8))])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.bfloat16, 2e-2)])
def test_it_is_batch_norm(
    dims: int, space: tuple[int, ...], channels: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    ours, peer = pair(dims, channels)
    offsets = torch.arange(channels, dtype=torch.float32).view(-1, *(1,) * dims)
    image, gradient = (
        (torch.randn(2, channels, *space) + plus).to(dtype).contiguous(memory_format=LAST[dims])
        for plus in (offsets, 0.0)
    )
    for found, wanted in zip(
        trained(ours, image, gradient), trained(peer, image.double(), gradient.double()), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=tolerance * float(wanted.abs().max()), rtol=0)
    assert ours.num_batches_tracked == 1


def test_few_channels_that_come_last_are_laid_side_by_side_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    apply = norm._side_by_side

    def told(rows: Tensor, *others: object) -> object:
        seen.append(tuple(rows.shape))
        return apply(rows, *others)

    monkeypatch.setattr(norm, "_side_by_side", told)
    for channels in (8, 12, 16, 24, 32):
        for layout in (torch.contiguous_format, torch.channels_last):
            BATCH_NORM[2](channels)(torch.randn(2, channels, 8, 8).contiguous(memory_format=layout))
    BATCH_NORM[2](8)(torch.randn(1, 8, 3, 3).contiguous(memory_format=torch.channels_last))  # 9 pixels, not fours
    BATCH_NORM[2](8).eval()(torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last))
    assert seen == [(32, 32), (16, 96), (32, 96)]


def test_a_gradient_that_is_one_number_everywhere() -> None:
    """As that of a sum: it has no layout of its own."""
    ours, peer = pair(2, 8)
    image = torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    found, wanted = [], []
    for layer, x, into in ((ours, image, found), (peer, image.double(), wanted)):
        layer(x).pow(2).sum().backward()
        layer(x).sum().backward()
        into += [layer.weight.grad.double(), layer.bias.grad.double()]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-5)
