"""The page of an evaluation: one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cvmh.classes import ClassTable
from cvmh.metrics import Scores
from cvmh.metrics.calibration import Calibration, Reliability
from cvmh.page import Html, element, escaped, joined, write_page
from cvmh.report.areas import SplitAreas
from cvmh.report.run_folder import RunFolder
from cvmh.report.sections.areas import area_section
from cvmh.report.sections.classes import class_section
from cvmh.report.sections.reading import reading_section
from cvmh.report.sections.reliability import reliability_section
from cvmh.report.sections.run import run_section
from cvmh.report.sections.scores import key_figures, score_section
from cvmh.report.sections.windows import window_section
from cvmh.report.window_pictures import WindowPanels

# The sections by their anchors, as the contents of the page list them.
CONTENTS = {
    "scores": "Scores by protocol",
    "classes": "Classes and confusion",
    "windows": "Worst and best windows",
    "reliability": "Reliability",
    "areas": "Areas",
    "training": "Training",
    "reading": "How to read this",
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the page of an evaluation shows; what is None or empty is left out.

    Args:
        title: the first heading.
        about: facts on the evaluation by their names: bundle, data set, date, command ...
        dataset: the name of the data set, to find published figures.
        classes: the class table.
        scores: one entry a protocol; the first is shown largest.
        reliability: of the evaluated pixels.
        by_class: the same of the pixels that are predicted as each class.
        calibration: how the bundle's temperature was fitted.
        temperature: of the bundle.
        areas: of the labelled pixels, as mapped, estimated and labelled.
        worst: the worst windows.
        best: the best windows.
        run: the run that the bundle came from.
    """

    title: str
    about: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    classes: ClassTable
    scores: Sequence[Scores]
    reliability: Reliability | None = None
    by_class: Sequence[Reliability] = ()
    calibration: Calibration | None = None
    temperature: float = 1.0
    areas: SplitAreas | None = None
    worst: Sequence[WindowPanels] = ()
    best: Sequence[WindowPanels] = ()
    run: RunFolder | None = None


def evaluation_page(findings: Findings) -> str:
    """Return the page; the same findings give the same text."""
    first = findings.scores[0]
    sections = {
        "scores": score_section(findings.scores, dataset=findings.dataset),
        "classes": class_section(findings.scores, findings.classes),
        "windows": _windows(findings),
        "reliability": _reliability(findings),
        "areas": _areas(findings),
        "training": _training(findings),
        "reading": reading_section(),
    }
    shown = {name: content for name, content in sections.items() if content}
    return write_page(
        findings.title,
        _about(findings.about),
        key_figures(first),
        _contents(shown),
        *shown.values(),
    )


def _about(facts: Mapping[str, str]) -> Html:
    rows = joined(
        joined([element("dt", name), element("dd", text)]) for name, text in facts.items() if text
    )
    return element("dl", rows, attributes={"class": "about"})


def _contents(names: Mapping[str, Html]) -> Html:
    links = joined(
        element("li", Html(f'<a href="#{name}">{escaped(CONTENTS[name])}</a>')) for name in names
    )
    return element("nav", element("ul", links), attributes={"aria-label": "Contents"})


def _windows(findings: Findings) -> Html:
    if not findings.worst and not findings.best:
        return Html()
    return window_section(findings.worst, findings.best, findings.classes)


def _reliability(findings: Findings) -> Html:
    if findings.reliability is None and findings.calibration is None:
        return Html()
    return reliability_section(
        findings.reliability,
        split=findings.scores[0].split,
        calibration=findings.calibration,
        temperature=findings.temperature,
        by_class=dict(zip(findings.classes.names, findings.by_class, strict=False)),
    )


def _areas(findings: Findings) -> Html:
    if findings.areas is None:
        return Html()
    # A split of another data set may have the same name.
    return area_section(findings.areas, findings.classes)


def _training(findings: Findings) -> Html:
    if findings.run is None:
        return Html()
    return run_section(findings.run.rows, findings.run.settings)
