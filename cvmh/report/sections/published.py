"""What others have published, beside the scores of this bundle."""

from collections.abc import Sequence
from itertools import groupby

from cvmh.metrics import Scores
from cvmh.page import Html, element, folded, joined, table
from cvmh.report.numbers import percent, printed
from cvmh.report.published import Published, compare
from cvmh.report.published_rows import find_published

HEAD = ("network", "mIoU %", "mF1 %", "OA %", "comparable", "what to know")
TEXTS = (4, 5, 6)


def published_part(scores: Sequence[Scores], *, dataset: str) -> Html:
    """Return the published rows of a data set beside these scores; nothing if there are none.

    Rows of a protocol that is scored here stand in one table with this bundle, by mIoU; the others
    are folded.
    """
    rows = find_published(dataset)
    if not rows:
        return Html()
    by_name = {entry.protocol: entry for entry in scores}
    alike = [row for row in rows if row.protocol in by_name]
    groups = groupby(alike, key=lambda row: (row.protocol or "", row.source))
    other = [row for row in rows if row.protocol not in by_name]
    return joined(
        [
            element("h3", "Published figures"),
            element(
                "p",
                "As printed by their sources. Split, labels, classes in the means and test-time "
                "augmentation move one network by several points, so only rows that are marked "
                "comparable are, and even they say little about one or two tenths.",
            ),
            *(
                _group(by_name[protocol], list(found), source=source)
                for (protocol, source), found in groups
            ),
            _others(other, scores, dataset=dataset),
        ]
    )


def _group(own: Scores, rows: Sequence[Published], *, source: str) -> Html:
    figures = (percent(own.miou), percent(own.mf1), percent(own.oa))
    bold = [element("strong", text) for text in ("this bundle", *figures)]
    ranked = [(-(row.miou or 0), _row(row, compare(row, [own]))) for row in rows]
    ranked.append((-100 * (own.miou or 0), [*bold, "", f"split {own.split}"]))
    ranked.sort(key=lambda pair: pair[0])
    caption = f"Protocol {own.protocol}: {source}"
    return table(HEAD, [cells for _, cells in ranked], caption=caption, texts=TEXTS[:2])


def _others(rows: Sequence[Published], scores: Sequence[Scores], *, dataset: str) -> Html:
    if not rows:
        return Html()
    cells = [[*_row(row, compare(row, scores)), row.source] for row in rows]
    caption = f"Published figures on {dataset} of other protocols than those scored here"
    content = table((*HEAD, "source"), cells, caption=caption, texts=TEXTS)
    return folded(f"{len(rows)} published rows that do not compare with these scores", content)


def _row(row: Published, verdict: str) -> list[str]:
    kind = "good" if verdict == "yes" else "quiet"
    return [
        row.method,
        printed(row.miou),
        printed(row.mf1),
        printed(row.oa),
        element("span", verdict, attributes={"class": kind}),
        row.caveat or "-",
    ]
