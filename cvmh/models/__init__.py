"""Networks made of ops, the table that names them, and the bundle that keeps a trained one."""

from cvmh.models.bundle import Bundle, BundleCard, load_bundle, read_card, save_bundle
from cvmh.models.zoo import PRESETS, create_model

__all__ = [
    "PRESETS",
    "Bundle",
    "BundleCard",
    "create_model",
    "load_bundle",
    "read_card",
    "save_bundle",
]
