import pytest

from useg.data.axes import guess_roles, roles_of_tiff

ROW_COLUMN = ("row", "column")


@pytest.mark.parametrize(
    ("shape", "roles"),
    [
        ((40, 50), ROW_COLUMN),
        ((40, 50, 3), (*ROW_COLUMN, "channel")),
        ((128, 128, 12), (*ROW_COLUMN, "channel")),
        ((3, 40, 50), ("channel", *ROW_COLUMN)),
        ((10, 256, 216), ("plane", *ROW_COLUMN)),
        ((60, 256, 256), ("plane", *ROW_COLUMN)),
        ((4, 20, 50, 60), ("channel", "plane", *ROW_COLUMN)),
        ((20, 50, 60, 2), ("plane", *ROW_COLUMN, "channel")),
        ((1, 1, 20, 50, 60), ("single", "single", "plane", *ROW_COLUMN)),
    ],
)
def test_axes_of_an_array_without_description(shape: tuple[int, ...], roles: tuple[str, ...]) -> None:
    assert guess_roles(shape) == roles


@pytest.mark.parametrize("shape", [(5,), (50, 60, 70, 80), (2, 3, 4, 5, 6)])
def test_an_array_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="neither"):
        guess_roles(shape)


@pytest.mark.parametrize(
    ("axes", "shape", "roles"),
    [
        ("YX", (40, 50), ROW_COLUMN),
        ("YXS", (40, 50, 3), (*ROW_COLUMN, "channel")),
        ("SYX", (12, 128, 128), ("channel", *ROW_COLUMN)),
        ("ZYX", (2, 40, 50), ("plane", *ROW_COLUMN)),
        ("IYX", (3, 40, 50), ("plane", *ROW_COLUMN)),
        ("IYX", (2, 40, 50), ("channel", *ROW_COLUMN)),
        ("CYX", (7, 40, 50), ("channel", *ROW_COLUMN)),
        ("ZCYX", (7, 2, 40, 50), ("plane", "channel", *ROW_COLUMN)),
        ("TZYX", (1, 7, 40, 50), ("single", "plane", *ROW_COLUMN)),
        ("QYX", (128, 128, 12), (*ROW_COLUMN, "channel")),
        ("YXS", (12, 128, 140), ("channel", *ROW_COLUMN)),
        ("SYX", (128, 140, 12), (*ROW_COLUMN, "channel")),
    ],
)
def test_axes_of_a_tiff(axes: str, shape: tuple[int, ...], roles: tuple[str, ...]) -> None:
    assert roles_of_tiff(axes, shape) == roles


def test_two_axes_of_planes_are_refused() -> None:
    with pytest.raises(ValueError, match="T=5, Z=7"):
        roles_of_tiff("TZYX", (5, 7, 40, 50))
