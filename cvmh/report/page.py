"""A page of scores that stands alone: no script, no other file."""

from collections.abc import Sequence
from html import escape

from cvmh.metrics import Scores

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
"""


def score_page(scores: Sequence[Scores], *, title: str) -> str:
    """Return an HTML page with a table of classes and a confusion matrix for each protocol."""
    parts = [_section(entry) for entry in scores]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def _section(scores: Scores) -> str:
    summary = (
        f"<h2>Protocol {escape(scores.protocol)}, split {escape(scores.split)}</h2>"
        f"<p>mIoU {_percent(scores.miou)}, mean F1 {_percent(scores.mf1)}, "
        f"overall accuracy {_percent(scores.oa)}</p>"
    )
    rows = [
        [name, *map(_percent, (c.iou, c.f1, c.precision, c.recall)), f"{c.pixels:,}"]
        for name, c in scores.classes.items()
    ]
    names = list(scores.classes)
    shares = [
        [name, *(_percent(count / sum(row) if sum(row) else None) for count in row)]
        for name, row in zip(names, scores.confusion, strict=True)
    ]
    return (
        summary
        + _table(["class", "IoU", "F1", "precision", "recall", "labelled pixels"], rows)
        + "<h3>Confusion: each row is a label, spread over the predictions</h3>"
        + _table(["label", *names], shares)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
