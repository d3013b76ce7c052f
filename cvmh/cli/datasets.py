"""``cvmh data list`` and ``cvmh data prepare``."""

import json
import shutil
from pathlib import Path
from typing import Any

import click
from click.formatting import wrap_text

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb


@click.command("list", cls=Verb)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def list_sets(as_json: bool) -> None:
    """List the known data sets: classes, size, layouts, splits, licence.

    Nothing is downloaded; data/README.md says where to get each set and which folders it expects.
    """
    from cvmh.datasets.known import KNOWN

    rows = []
    for known in KNOWN.values():
        splits = {
            name: {"about": splits.about, "images": splits.expected}
            for name, splits in known.splits.items()
        }
        rows.append(
            {
                "name": known.name,
                "title": known.title,
                "classes": known.classes.names,
                "size": known.size,
                "resolution": known.resolution,
                "layouts": [layout.name for layout in known.layouts],
                "splits": splits,
                "licence": known.licence,
                "citation": known.citation,
                "get": known.get,
            }
        )
    click.echo(json.dumps(rows, indent=1)) if as_json else _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    width = shutil.get_terminal_size().columns
    for row in rows:
        click.echo(f"{row['name']}: {row['title']}, {row['size']}, {row['resolution']}")
        for key in ("classes", "layouts", "splits", "licence", "get"):
            text = row[key] if isinstance(row[key], str) else ", ".join(row[key])
            lines = wrap_text(text, width, f"  {key:<9}", " " * 11)
            click.echo(lines)
    click.echo("folder: your own images, see data/README.md")


@click.command(cls=Verb)
@click.argument("name")
@click.argument("root", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="The new folder.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of data, for example data.splits=geoseg; may be given many times.",
)
@click.option("--anyway", is_flag=True, help="Write it also where reading gets hardly faster.")
def prepare(
    name: str, root: Path, output: Path, assignments: tuple[str, ...], anyway: bool
) -> None:
    """Write data set NAME in ROOT once more as tiled GeoTIFFs with index labels, to read it faster.

    Only large images that cannot be read in parts are worth it: strips, PNG, JPEG, labels in
    colours. Train on the result with --dataset folder. A call that was interrupted is continued.

    Example: cvmh data prepare uavid downloads/uavid -o data/uavid
    """
    from cvmh.config import DataSettings
    from cvmh.datasets import open_data
    from cvmh.datasets.prepare import prepare as write
    from cvmh.errors import ConfigError
    from cvmh.settings import merge, parse_assignment, validate

    wanted = merge(*map(parse_assignment, assignments))
    if other := [key for key in wanted if key != "data"]:
        raise ConfigError(
            f"--set of prepare takes settings of data, such as data.splits=geoseg, got '{other[0]}'"
        )
    given = {**wanted.get("data", {}), "dataset": name, "root": root}
    data = open_data(validate(DataSettings, given, source="options"))
    with shown("auto") as progress:
        write(data, output, anyway=anyway, progress=progress)
    click.echo(output)
