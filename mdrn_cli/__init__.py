"""mdrn: an image denoiser built on MDRN (CVPR Workshops 2022)."""

__version__ = "0.1.0"
