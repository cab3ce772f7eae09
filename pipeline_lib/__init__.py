"""Pretrained visual uncertainties: from images to representations that know when they are off."""

__version__ = "0.1.0"
