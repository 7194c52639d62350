"""mdrn: an image denoiser built on MDRN (CVPR Workshops 2022).

`mdrn_cli.denoise(image)` and `mdrn_cli.estimate_sigma(image)` are the Python API; torch is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdrn_cli.api import denoise, estimate_sigma

__version__ = "0.1.0"
__all__ = ["denoise", "estimate_sigma", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("denoise", "estimate_sigma"):
        from mdrn_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
