"""cvmh: segment satellite and aerial images with vision state space models.

The names below load their parts on first use, so that ``import cvmh`` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cvmh.version import VERSION as __version__

if TYPE_CHECKING:
    from cvmh.models import create_model, load_bundle, save_bundle
    from cvmh.models.encoders.registration import register_encoders
    from cvmh.predict import predict_raster

_HOMES = {
    "create_model": "cvmh.models",
    "load_bundle": "cvmh.models",
    "predict_raster": "cvmh.predict",
    "register_encoders": "cvmh.models.encoders.registration",
    "save_bundle": "cvmh.models",
}

__all__ = [
    "__version__",
    "create_model",
    "load_bundle",
    "predict_raster",
    "register_encoders",
    "save_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cvmh' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
