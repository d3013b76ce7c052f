"""What a network took from a file of published weights, for the user and for the record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a network took from a file of published weights.

    ``taken`` is the key of the file under which they were, ``variant`` the encoder that they are
    of. ``loaded`` counts tensors, of which those of ``adapted`` were fitted to the bands. Of what
    stayed random, and of what the file has besides, there is a count for each part. ``address`` and
    ``licence`` are None where the catalogue does not know the file.
    """

    file: str
    sha256: str
    taken: str
    variant: str | None
    loaded: int
    adapted: tuple[str, ...]
    random: Mapping[str, int]
    dropped: Mapping[str, int]
    known_bands: tuple[str, ...]
    new_bands: tuple[str, ...]
    note: str = ""
    address: str | None = None
    licence: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, for the record of a run."""
        return asdict(self)

    def describe(self) -> str:
        """Return one sentence for the user."""
        kind = f" of {self.variant}" if self.variant else ""
        parts = [f"{self.loaded} tensors{kind} loaded (from {self.taken})"]
        if self.adapted:
            parts.append(f"fitted to the bands: {', '.join(self.adapted)}")
        if self.new_bands:
            parts.append(f"new bands from the mean of the others: {', '.join(self.new_bands)}")
        if self.note:
            parts.append(self.note)
        for said, counts in (("left random", self.random), ("not used", self.dropped)):
            if counts:
                parts.append(f"{said}: " + ", ".join(f"{k} ({n})" for k, n in counts.items()))
        if self.licence:
            parts.append(f"licence of the weights: {self.licence}")
        return f"weights from {self.file}: {'; '.join(parts)}"
