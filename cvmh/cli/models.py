"""``cvmh models``."""

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cvmh.cli.verb import Verb


@click.command(cls=Verb)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(as_json: bool) -> None:
    """List the networks: parameters, cost, source and published figures.

    Parameters and cost are counted here, for 3 bands, 6 classes and 256 x 256 pixels. GMACs count
    convolutions, matrix products, norms and poolings, as most papers do; the scan stands beside.
    """
    import json

    from cvmh.models.cost import count_cost
    from cvmh.models.zoo import PRESETS, create_model

    rows: list[dict[str, Any]] = []
    for name, preset in PRESETS.items():
        cost = count_cost(create_model(name), height=256, width=256, bands=3)
        rows.append(
            {
                "name": name,
                "parameters": cost.parameters,
                "gmacs": round(cost.macs / 1e9, 3),
                "scan_gflops": round(cost.scan_flops / 1e9, 3),
                "source": preset.source,
                "published": preset.published,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = Table("name", "parameters", "GMACs", "scan GFLOPs", "source", "published", box=None)
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['gmacs']:.2f}",
            f"{row['scan_gflops']:.2f}",
            str(row["source"]),
            str(row["published"]),
        )
    Console().print(table)
