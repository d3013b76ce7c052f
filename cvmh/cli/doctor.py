"""``cvmh data doctor``."""

import json
from pathlib import Path

import click

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb


@click.command(cls=Verb)
@click.argument("name")
@click.argument("root", type=PATH)
@click.option("--layout", metavar="NAME", help="How the files lie; default found by looking.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--html", "page", type=PATH, metavar="FILE", help="Write a page with pictures here.")
@click.option("--overwrite", is_flag=True, help="Replace the page if it exists.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.pass_context
def doctor(
    ctx: click.Context,
    name: str,
    root: Path,
    layout: str | None,
    as_json: bool,
    page: Path | None,
    overwrite: bool,
    strict: bool,
) -> None:
    """Say what is wrong with data set NAME in folder ROOT, and what to do.

    Exits with 1 if there are errors, which spoil training or scores; warnings are worth a look
    and exit with 0, unless --strict is given; notes are no faults.

    Example: cvmh data doctor folder my_tiles --html doctor.html
    """
    from cvmh.datasets.doctor import examine, to_json, to_text
    from cvmh.datasets.doctor.page import to_page
    from cvmh.errors import OutputError
    from cvmh.files import write_complete

    if page is not None and page.exists() and not overwrite:
        raise OutputError(f"{page} exists; choose another file or give --overwrite")
    with shown("auto") as progress:
        diagnosis = examine(name, root, layout=layout, progress=progress)
    click.echo(json.dumps(to_json(diagnosis), indent=1) if as_json else to_text(diagnosis))
    if page is not None:
        write_complete(page, to_page(diagnosis))
        click.echo(f"cvmh: wrote {page}", err=True)
    if diagnosis.count("error") or (strict and diagnosis.count("warning")):
        ctx.exit(1)
