"""``cvmh info``."""

from pathlib import Path

import click

from cvmh.cli.verb import PATH, Verb


@click.command(cls=Verb)
@click.argument("file", type=PATH)
@click.option(
    "--checkpoint", type=PATH, metavar="BUNDLE", help="Say whether a raster fits this bundle."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(file: Path, checkpoint: Path | None, as_json: bool) -> None:
    """Say what a raster, a bundle, a run folder or a mask is, and whether it fits."""
    import json

    from cvmh.report.info import describe

    facts = describe(file, checkpoint=checkpoint)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_as_text(value)}")


def _as_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(entry)}" for key, entry in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)
