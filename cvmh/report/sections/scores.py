"""Scores by protocol, and what each protocol counts."""

from collections.abc import Sequence

from cvmh.metrics import Scores
from cvmh.page import Html, element, escaped, folded, joined, section, table
from cvmh.report.numbers import decimal, percent
from cvmh.report.sections.published import published_part

SEEN = {
    "training": "this bundle was trained on images that are scored here, so these figures say "
    "nothing about new images",
    "selection": "this bundle was selected on images that are scored here, so these figures are "
    "somewhat optimistic",
}


def key_figures(scores: Scores) -> Html:
    """Return the three figures of one protocol, large."""
    figures = (("mean IoU", scores.miou), ("mean F1", scores.mf1), ("overall accuracy", scores.oa))
    boxes = joined(
        element("div", element("dt", name), element("dd", percent(value), _unit(value)))
        for name, value in figures
    )
    note = element("p", f"Protocol {scores.protocol}: {scores.facts.sentence}.")
    return joined([element("dl", boxes, attributes={"class": "key"}), note])


def score_section(scores: Sequence[Scores], *, dataset: str) -> Html:
    """Return the scores of all protocols, their facts, and the published rows of the data set."""
    return section(
        "Scores by protocol",
        *(
            element(
                "p",
                f"Protocol {entry.protocol}: {SEEN[entry.facts.seen_in]}.",
                attributes={"class": "bad"},
            )
            for entry in scores
            if entry.facts.seen_in
        ),
        _score_table(scores),
        _facts_table(scores),
        _notes(scores),
        published_part(scores, dataset=dataset),
        anchor="scores",
    )


def _score_table(scores: Sequence[Scores]) -> Html:
    head = ["protocol", "split", "mIoU %", "mF1 %", "OA %", "kappa"]
    rows = [
        [
            entry.protocol,
            entry.split,
            percent(entry.miou),
            percent(entry.mf1),
            percent(entry.oa),
            decimal(entry.kappa),
        ]
        for entry in scores
    ]
    if any(entry.boundary for entry in scores):
        head += ["boundary IoU %", "boundary F1 %", "border width"]
        for row, entry in zip(rows, scores, strict=True):
            row += _boundary_cells(entry)
    return table(head, rows, caption="Scores of whole splits, one row a protocol", texts=(1,))


def _boundary_cells(scores: Scores) -> list[str]:
    found = scores.boundary
    if found is None:
        return ["-", "-", "-"]
    ground = "" if found.metres is None else f" ({found.metres:.3g} m)"
    return [percent(found.miou), percent(found.mf1), f"{found.width} px{ground}"]


def _facts_table(scores: Sequence[Scores]) -> Html:
    facts = [entry.facts for entry in scores]
    rows = [
        ["split", *(f"{e.split}, table {e.facts.splits or 'of the data set'}" for e in scores)],
        ["labels", *(_labels(f.labels, f.labels_from) for f in facts)],
        ["left out of the means", *(_listed(f.left_out) for f in facts)],
        ["not counted in OA", *(_listed(f.uncounted) for f in facts)],
        ["test-time augmentation", *("flips and turns" if f.tta else "none" for f in facts)],
        ["scored as", *("stitched scenes" if f.is_stitched else "single tiles" for f in facts)],
        ["bundle trained on", *(f.trained_on or "-" for f in facts)],
        ["what this bundle saw", *(f"{f.seen_in}: {f.seen}" if f.seen_in else "-" for f in facts)],
    ]
    kept = [row for row in rows if any(cell != "-" for cell in row[1:])]
    head = ["", *(entry.protocol for entry in scores)]
    return table(head, kept, caption="What each protocol counts", kind="text facts")


def _notes(scores: Sequence[Scores]) -> Html:
    """Return in what the protocols differ from those of their authors, and where they stand."""
    items = joined(
        joined(
            [
                element("dt", entry.protocol),
                element("dd", entry.facts.note) if entry.facts.note else Html(),
                element("dd", f"Source: {entry.facts.source}", attributes={"class": "quiet"}),
            ]
        )
        for entry in scores
        if entry.facts.source
    )
    return folded("notes and sources of the protocols", element("dl", items)) if items else Html()


def _labels(labels: str, origin: str) -> str:
    return f"{labels}, {origin}" if origin else labels


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"


def _unit(value: float | None) -> Html:
    return Html() if value is None else element("small", escaped(" %"))
