"""Numbers as the pages show them: percent with one decimal, and "-" where there is none."""


def percent(value: float | None) -> str:
    """Return a share 0..1 in percent, without the sign."""
    return "-" if value is None else f"{100 * value:.1f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals."""
    return "-" if value is None else f"{value:,.{digits}f}"


def printed(value: float | None) -> str:
    """Return a figure that is printed in percent somewhere, as precisely as it is there."""
    return "-" if value is None else f"{value:g}"
