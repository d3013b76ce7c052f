"""What TSM2s differ in."""

from pydantic import Field

from cvmh.settings import Settings


class TSM2Settings(Settings):
    """The series that a TSM2 reads, and its size."""

    # Series of a sample that are mixed: indices or bands of a pixel.
    variates: int = Field(1, ge=1)
    # Numbers that a sample has once, such as its elevation; and series that explain, such as
    # temperature. 0: there are none.
    static: int = Field(0, ge=0)
    varying: int = Field(0, ge=0)
    # Time steps that make one token.
    patch: int = Field(4, ge=1)
    width: int = Field(32, ge=1)
    # Pairs of a time mixer and a variate mixer.
    depth: int = Field(2, ge=1)
    d_state: int = Field(8, ge=1)
    expand: float = Field(2.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    # Bring each variate of each sample to mean 0 and deviation 1 first: its course then counts, and
    # not its level.
    is_scaled: bool = True


class ForecasterSettings(TSM2Settings):
    """A TSM2 that says how its series go on."""

    # Time steps that it forecasts.
    horizon: int = Field(ge=1)


class ClassifierSettings(TSM2Settings):
    """A TSM2 that says of which class a sample is."""

    num_classes: int = Field(ge=2)
    # The level of an index tells classes apart.
    is_scaled: bool = False
