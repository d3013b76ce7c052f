"""The devices and the precision that a network runs with, by their names."""

import torch

from cvmh.errors import ConfigError

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """Return the devices that some names with commas between mean.

    Raises:
        ConfigError: a name is unknown, this machine has no such device, or they are of two kinds.
    """
    devices = tuple(dict.fromkeys(choose_device(name.strip()) for name in names.split(",")))
    if len({device.type for device in devices}) > 1:
        raise ConfigError(f"several devices must be of one kind, got '{names}'")
    return devices


def choose_device(name: str) -> torch.device:
    """Return the device that a name means; "auto" is cuda where there is one, else cpu.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device must be auto, {', '.join(DEVICES)} or cuda:N, got '{name}'"
        ) from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 0):
        here = ", ".join(kind for kind, count in counts.items() if count)
        raise ConfigError(f"device '{name}' is not on this machine; it has {here}")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the forward pass; "auto" is bf16 on cuda, else fp32.

    Raises:
        ConfigError: the name is unknown.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise ConfigError(f"precision must be auto, {' or '.join(PRECISIONS)}, got '{name}'")
    return PRECISIONS[name]
