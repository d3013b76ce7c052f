"""Sizes of memory as people write them: 800M, 4G."""

import re

import click

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


class MemorySize(click.ParamType[int]):
    """Bytes, with a unit of 1024: 512M, 1.5G."""

    name = "SIZE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Parse a size."""
        if isinstance(value, int):
            return value
        found = SIZE.fullmatch(str(value).strip())
        if found is None or not float(found[1]):
            self.fail(f"must be a size of memory such as 800M or 4G, got '{value}'")
        return int(float(found[1]) * UNITS[found[2].lower()])
