"""Scores of single classes, and which class is taken for which."""

from collections.abc import Sequence

from cvmh.classes import ClassTable
from cvmh.metrics import Scores
from cvmh.page import Html, element, escaped, figure, folded, joined, section, swatch, table
from cvmh.plots import ClassBar, class_bars
from cvmh.report.numbers import percent

# Names that have more letters in all are written upwards.
MOST_LETTERS = 60
# A matrix of more classes is too large for a page; the most frequent mistakes are told instead.
MOST_CLASSES, MOST_MISTAKES = 32, 40
# From this share on, a cell is so dark that its text must be light.
DARK = 0.7


def class_section(scores: Sequence[Scores], classes: ClassTable) -> Html:
    """Return bars, tables and confusion of every protocol; all but the first folded."""
    first, *others = scores
    return section(
        "Classes and confusion",
        _of_protocol(first, classes, number=0),
        *(
            folded(f"protocol {entry.protocol}", _of_protocol(entry, classes, number=number))
            for number, entry in enumerate(others, start=1)
        ),
        anchor="classes",
    )


def _of_protocol(scores: Scores, classes: ClassTable, *, number: int) -> Html:
    bars = [
        ClassBar(name=entry.name, rgb=entry.rgb, iou=row.iou, f1=row.f1)
        for entry, row in zip(classes, scores.classes.values(), strict=True)
    ]
    drawn = class_bars(bars, mean=scores.miou, name=f"bars{number}")
    about = f"protocol {scores.protocol}, split {scores.split}"
    return joined(
        [
            figure(drawn, caption=f"IoU and F1 of each class, {about}"),
            class_table(scores, classes, caption=f"Scores of each class, {about}"),
            element("h3", "Confusion"),
            *_confusion(scores, classes),
        ]
    )


def _confusion(scores: Scores, classes: ClassTable) -> list[Html]:
    if len(classes) > MOST_CLASSES:
        return [mistake_table(scores)]
    return [
        confusion_table(scores, classes),
        folded("the same in pixels", count_table(scores)),
    ]


def class_table(scores: Scores, classes: ClassTable, *, caption: str) -> Html:
    """Return IoU, F1, precision and recall of each class, with its labelled pixels."""
    head = ["class", "IoU %", "F1 %", "precision %", "recall %"]
    rows = [
        [_named(scores, name, rgb), *map(percent, (row.iou, row.f1, row.precision, row.recall))]
        for (name, row), rgb in zip(scores.classes.items(), classes.colours, strict=True)
    ]
    if scores.boundary is not None:
        head += ["boundary IoU %", "boundary F1 %"]
        for cells, found in zip(rows, scores.boundary.classes.values(), strict=True):
            cells += [percent(found.iou), percent(found.f1)]
    head += ["labelled pixels", "share %"]
    total = sum(row.pixels for row in scores.classes.values())
    for cells, row in zip(rows, scores.classes.values(), strict=True):
        cells += [f"{row.pixels:,}", percent(row.pixels / total if total else None)]
    return table(head, rows, caption=caption)


def confusion_table(scores: Scores, classes: ClassTable) -> Html:
    """Return the confusion matrix, each row in percent of a class's labels, as a heat map."""
    names = list(scores.classes)
    rows = [
        [
            joined([swatch(rgb), name]),
            *(_cell(names, row, label, guess) for guess in range(len(names))),
        ]
        for label, (name, rgb, row) in enumerate(
            zip(names, classes.colours, scores.confusion, strict=True)
        )
    ]
    caption = "Rows are labels, columns predictions: percent of the labelled pixels of the row"
    is_wide = sum(map(len, names)) > MOST_LETTERS
    head = ["label \\ predicted", *(element("span", name) for name in names)]
    return table(head, rows, caption=caption, kind="heat upward" if is_wide else "heat")


def count_table(scores: Scores) -> Html:
    """Return the confusion matrix in pixels."""
    names = list(scores.classes)
    rows = [
        [name, *(f"{count:,}" for count in row)]
        for name, row in zip(names, scores.confusion, strict=True)
    ]
    return table(["label \\ predicted", *names], rows, caption="Pixels; rows are labels")


def mistake_table(scores: Scores) -> Html:
    """Return the pairs of classes that are mistaken for each other most often."""
    names = list(scores.classes)
    pairs = [
        (count, sum(row), names[label], names[guess])
        for label, row in enumerate(scores.confusion)
        for guess, count in enumerate(row)
        if count and label != guess
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [
        [label, guess, f"{count:,}", percent(count / total)]
        for count, total, label, guess in pairs[:MOST_MISTAKES]
    ]
    head = ["label", "predicted", "pixels", "share of the label %"]
    caption = f"The most frequent of {len(pairs)} kinds of mistakes; scores.json has the matrix"
    return table(head, rows, caption=caption, texts=(1,))


def _cell(names: Sequence[str], row: Sequence[int], label: int, guess: int) -> Html:
    total, count = sum(row), row[guess]
    share = count / total if total else 0.0
    title = f"{count:,} of {total:,} pixels of {names[label]} are predicted as {names[guess]}"
    kind = "hit" if label == guess else "miss"
    depth = " dark" if share > DARK else " none" if share < 0.0005 else ""
    return element(
        "span",
        percent(share if total else None),
        attributes={"class": kind + depth, "title": title, "style": f"--share:{share:.3f}"},
    )


def _named(scores: Scores, name: str, rgb: Sequence[int]) -> Html:
    """Return a class with its colour, and whether the means leave it out."""
    is_out = name in scores.facts.left_out
    note = element("small", " (not in the means)", attributes={"class": "quiet"}) if is_out else ""
    return joined([swatch(rgb), escaped(name), note])
