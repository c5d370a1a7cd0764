"""Numerics: arrays in, arrays out; no files, no services, no settings objects."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from useg.segmentation.unet import UNet

__all__ = ["UNet"]


def __getattr__(name: str) -> Any:
    # metrics and geometry need no network: torch is loaded when somebody asks for one
    if name == "UNet":
        from useg.segmentation.unet import UNet

        return UNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
