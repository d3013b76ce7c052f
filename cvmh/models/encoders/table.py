"""The table of encoders, and the function that builds one by name."""

import difflib
from collections.abc import Mapping
from typing import Any

from cvmh.errors import ConfigError
from cvmh.models.encoders.encoder import Encoder
from cvmh.models.encoders.groupmamba import GROUPMAMBA
from cvmh.models.encoders.plainmamba import PLAINMAMBA
from cvmh.models.encoders.variant import Family
from cvmh.models.encoders.vim2 import VIM2
from cvmh.models.encoders.vmamba import VMAMBA
from cvmh.models.encoders.vssd import VSSDS
from cvmh.settings import validate

FAMILIES: tuple[Family, ...] = (VMAMBA, VSSDS, GROUPMAMBA, VIM2, PLAINMAMBA)
# The family of each encoder by the encoder's name.
ENCODERS: Mapping[str, Family] = {name: family for family in FAMILIES for name in family.variants}


def create_encoder(name: str, *, bands: int = 3, **settings: Any) -> Encoder:
    """Build an encoder by name, with random weights.

    Args:
        name: a name of the table, such as ``vmamba_tiny_s1l8`` (``cvmh models`` prints it).
        bands: number of input bands.
        settings: settings that differ from the variant's; ``out_indices`` says which maps it
            returns.

    Returns:
        A module that maps (B, bands, H, W) float to a list of maps (B, C, H / stride, W / stride).

    Raises:
        ConfigError: the name or a setting is unknown; the message names the nearest right one.
    """
    if name not in ENCODERS:
        close = difflib.get_close_matches(name.strip().lower(), ENCODERS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "known: " + ", ".join(ENCODERS)
        raise ConfigError(f"there is no encoder '{name}'; {hint}")
    family = ENCODERS[name]
    chosen = {**family.variants[name].settings, **settings, "bands": bands}
    return family.encoder(validate(family.settings, chosen, source=f"encoder '{name}'"))
