"""The network: the published one to the last parameter, later variants by their shapes, folding, first weights."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from useg.segmentation.geometry import margin_px, output_size
from useg.segmentation.unet import UNet


def convolutions(network: nn.Module) -> list[nn.Module]:
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def result_size(network: UNet, *size: int) -> tuple[int, ...]:
    with torch.device("meta"):
        image = torch.empty(1, 1, *size)
    return tuple(network.to("meta").eval()(image).shape)


def test_the_network_of_2015() -> None:
    network = UNet.paper()
    assert sum(p.numel() for p in network.parameters()) == 31_030_658
    # the paper counts 23 layers, with the up-convolutions
    assert len(convolutions(network)) == 23
    widths = [block.conv2.out_channels for block in network.down]
    assert widths == [64, 128, 256, 512, 1024]
    assert result_size(network, 572, 572) == (1, 2, 388, 388)


@pytest.mark.parametrize("size", [188, 204, 220, 380, 572, 700])
def test_valid_sizes_come_in_steps_of_16(size: int) -> None:
    network = UNet.paper(classes=3)
    smaller = result_size(network, size, 188)
    assert smaller == (1, 3, size - 184, 4)
    assert output_size(size, 4, valid=True) == size - 184 == size - 2 * margin_px(4, valid=True)


def test_the_skips_of_valid_convolutions_are_cut_from_the_middle() -> None:
    """A change of one corner pixel outside the receptive field of the middle changes nothing there."""
    network = UNet(base=2, depth=2, valid=True, batch_norm=False).eval()
    image = torch.randn(1, 1, 60, 60)
    moved = torch.roll(image, (4, 8), (2, 3))
    with torch.no_grad():
        one, other = network(image), network(moved)
    torch.testing.assert_close(one[..., :-4, :-8], other[..., 4:, 8:])


@pytest.mark.parametrize(("residual", "light_top"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("dims", "space", "strides"),
    [
        (2, (32, 48), None),
        (2, (16, 64), ((1, 2), (2, 2))),
        (3, (8, 16, 24), None),
        (3, (5, 16, 16), ((1, 2, 2), (1, 2, 2))),
    ],
)
def test_shapes(dims: int, space: tuple[int, ...], strides, residual: bool, light_top: bool) -> None:
    network = UNet(
        dims=dims, channels=3, outputs=4, base=3, depth=2, strides=strides, residual=residual, light_top=light_top
    )
    assert network(torch.randn(2, 3, *space)).shape == (2, 4, *space)


@pytest.mark.parametrize("light_top", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_deep_supervision_gives_coarser_logits_while_training_only(dims: int, light_top: bool) -> None:
    network = UNet(dims=dims, base=2, depth=3, deep_supervision=True, light_top=light_top)
    image = torch.randn(2, 1, *(16,) * dims)
    assert [tuple(level.shape[2:]) for level in network(image)] == [(16,) * dims, (8,) * dims, (4,) * dims]
    assert all(level.shape[1] == 2 for level in network(image))
    assert network.eval()(image).shape == (2, 2, *(16,) * dims)


def test_widths_double_up_to_a_bound() -> None:
    network = UNet(base=4, depth=4, max_width=20)
    assert [block.conv1.out_channels for block in network.down] == [4, 8, 16, 20, 20]


def test_a_light_top_computes_little_at_full_resolution_and_sees_every_pixel() -> None:
    network = UNet(base=16, depth=3, light_top=True).eval()
    seen: list[tuple[int, int]] = []
    for module in convolutions(network):
        module.register_forward_hook(lambda module, given, result: seen.append((result.shape[1], result.shape[2])))
    image = torch.randn(1, 1, 32, 32)
    logits = network(image)
    assert [channels for channels, rows in seen if rows == 32] == [8, 8, 2]
    assert {rows for _, rows in seen} == {32, 16, 8, 4}
    for row in range(16, 18):
        for column in range(16, 18):
            changed = image.clone()
            changed[..., row, column] += 1
            assert not torch.equal(network(changed)[..., row, column], logits[..., row, column])
    with pytest.raises(ValueError, match="light top"):
        UNet(valid=True, light_top=True)


@pytest.mark.parametrize(("residual", "light_top"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("dims", [2, 3])
def test_folding_changes_nothing(dims: int, residual: bool, light_top: bool) -> None:
    torch.manual_seed(0)
    network = UNet(dims=dims, base=4, depth=2, residual=residual, light_top=light_top)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    image, exact = torch.randn(2, 1, *(16,) * dims), deepcopy(network).double()
    with torch.no_grad():
        before, truth = network.eval()(image), exact.eval()(image.double())
        after, folded = network.fold()(image), exact.fold()(image.double())
    torch.testing.assert_close(folded, truth, rtol=1e-9, atol=1e-9)
    assert float((after - before).abs().max()) < 1e-5 * float(before.abs().max())
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in network.modules())


def test_weights_begin_as_he_proposed() -> None:
    torch.manual_seed(0)
    network = UNet(channels=3, base=32, depth=3, residual=True)
    for module in convolutions(network):
        transposed = isinstance(module, nn.ConvTranspose2d)
        incoming = module.in_channels * (1 if transposed else module.weight[0, 0].numel())
        deviation = (2 / incoming) ** 0.5
        tolerance = 4 / (2 * module.weight.numel()) ** 0.5  # four standard errors of a standard deviation
        assert float(module.weight.detach().std()) == pytest.approx(deviation, rel=max(tolerance, 0.02))
        assert abs(float(module.weight.detach().mean())) < 4.5 * deviation / module.weight.numel() ** 0.5
        if module.bias is not None:
            assert not module.bias.detach().any()


def test_activations_neither_vanish_nor_explode() -> None:
    torch.manual_seed(0)
    logits = UNet.paper()(torch.randn(1, 1, 188, 188))
    assert 0.1 < float(logits.detach().std()) < 30


def test_dropout_only_at_the_end_of_the_contracting_path() -> None:
    network = UNet(base=2, depth=3, dropout=0.5)
    seen = []
    network.dropout.register_forward_hook(lambda module, given, result: seen.append(given[0].shape[1]))
    network(torch.randn(1, 1, 16, 16))
    assert seen == [8, 16]
    image = torch.randn(1, 1, 16, 16)
    network.eval()
    assert torch.equal(network(image), network(image))


def test_arguments_that_make_no_network() -> None:
    with pytest.raises(ValueError, match="dims is 2 or 3, not 4"):
        UNet(dims=4)
    with pytest.raises(ValueError, match="strides wants 3 tuples of 2 numbers"):
        UNet(depth=3, strides=((2, 2), (2, 2)))
    with pytest.raises(ValueError, match="strides wants 2 tuples of 3 numbers"):
        UNet(dims=3, depth=2, strides=((2, 2), (2, 2)))
