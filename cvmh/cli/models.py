"""``cvmh models``."""

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cvmh.cli.verb import Verb


@click.command(cls=Verb)
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def command(as_json: bool) -> None:
    """List networks and encoders: parameters, cost, source and published figures.

    Parameters and cost are counted here. Networks: for 3 bands, 6 classes and 256 x 256 pixels;
    GMACs count convolutions, matrix products, norms and poolings, as most papers do; the scan
    stands beside. Encoders: at 224 x 224, with a classifier of 1000 classes; GFLOPs count every
    multiply-add as one, and the scans. M is millions of parameters, with the classifier where
    published. Scores are of ImageNet-1k and, with UperNet, of ADE20K, in per cent.

    An encoder is trained under a decoder of segmentation-models-pytorch, for example with
    cvmh train --model smp:upernet:cvmh-vssd_tiny.
    """
    import json

    networks, encoders = _networks(), _encoders()
    if as_json:
        click.echo(json.dumps([*networks, *encoders], indent=1))
        return
    table = Table("name", "parameters", "GMACs", "scan GFLOPs", box=None)
    table.columns[0].no_wrap = True
    for row in networks:
        table.add_row(
            row["name"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['gmacs']:.2f}",
            f"{row['scan_gflops']:.2f}",
        )
    console = Console()
    console.print(table)
    console.print()
    for row in networks:
        published = f"; published: {row['published']}" if row["published"] else ""
        line = f"{row['name']}: {row['source']}{published}"
        console.print(line, soft_wrap=True, highlight=False)
    table = Table("encoder", "M", "GFLOPs", "published: M", "GFLOPs", "top-1", "ADE20K", box=None)
    table.columns[0].no_wrap = True
    for row in encoders:
        table.add_row(
            row["name"],
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['gflops']:.2f}",
            *_figures(row["published"]),
        )
    console.print()
    console.print(table)
    console.print()
    for family in dict.fromkeys((row["family"], row["source"], row["licence"]) for row in encoders):
        console.print("{}: {}; {}".format(*family), soft_wrap=True, highlight=False)


def _figures(published: dict[str, Any]) -> list[str]:
    """Return the published figures, "-" where there is none."""
    about = "" if published["is_exact"] else "about "
    found = [published[key] for key in ("gflops", "top1", "ade20k_miou")]
    return [
        f"{about}{published['parameters'] / 1e6:.2f}",
        *("-" if figure is None else str(figure) for figure in found),
    ]


def _networks() -> list[dict[str, Any]]:
    import torch

    from cvmh.models.cost import count_cost
    from cvmh.models.zoo import PRESETS, create_model

    rows = []
    for name, preset in PRESETS.items():
        # Shapes are enough to count by, and weights of all networks would be gigabytes.
        with torch.device("meta"):
            network = create_model(name)
        cost = count_cost(network, height=256, width=256, bands=3)
        rows.append(
            {
                "kind": "network",
                "name": name,
                "parameters": cost.parameters,
                "gmacs": cost.macs / 1e9,
                "scan_gflops": cost.scan_flops / 1e9,
                "gflops": cost.flops / 1e9,
                "source": preset.source,
                "published": preset.published,
            }
        )
    return rows


def _encoders() -> list[dict[str, Any]]:
    import torch

    from cvmh.models.cost import count_cost
    from cvmh.models.encoders import ENCODERS, create_encoder

    rows = []
    for name, family in ENCODERS.items():
        with torch.device("meta"):
            encoder = create_encoder(name)
            parameters = sum(parameter.numel() for parameter in encoder.parameters())
            classifier = family.classifier(encoder)
        cost = count_cost(classifier, height=224, width=224, bands=3)
        rows.append(
            {
                "kind": "encoder",
                "name": name,
                "family": family.name,
                "parameters": parameters,
                "gflops": cost.flops / 1e9,
                "scan_gflops": cost.scan_flops / 1e9,
                "source": family.source,
                "licence": family.licence,
                "published": family.variants[name].published._asdict(),
            }
        )
    return rows
