"""useg turns a folder of images and label masks into a trained, measured, reproducible U-Net."""

__version__ = "0.1.0"
