"""A diagnosis as text for people and as JSON for programs."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from cvmh.datasets.doctor.examine import Diagnosis
from cvmh.datasets.doctor.facts import Examination
from cvmh.datasets.doctor.finding import Finding, relative

# So many findings of a kind and so many files of a finding are told; --json has them all.
TOLD = 4


def to_text(diagnosis: Diagnosis) -> str:
    """Return the findings, the most severe first, under a line about the data set."""
    parts = [headline(diagnosis)]
    for (severity, _), group in groupby(diagnosis.findings, key=lambda f: (f.severity, f.code)):
        findings = list(group)
        parts += [_told(severity, finding, diagnosis) for finding in findings[:TOLD]]
        if len(findings) > TOLD:
            parts.append(f"{severity:<8} and {len(findings) - TOLD} more like this")
    return "\n".join([*parts, verdict(diagnosis)])


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return everything that was found, with all files."""
    examination = diagnosis.examination
    return {
        "dataset": diagnosis.name,
        "root": str(diagnosis.root),
        "errors": diagnosis.count("error"),
        "warnings": diagnosis.count("warning"),
        "notes": diagnosis.count("note"),
        "findings": [finding.to_json(diagnosis.root) for finding in diagnosis.findings],
        **({} if examination is None else _facts(examination)),
    }


def _facts(examination: Examination) -> dict[str, Any]:
    data = examination.data
    return {
        "layout": data.layout,
        "splits_table": data.splits,
        "label_set": data.label_set,
        "splits": {
            split: {
                "images": len(images),
                "class_pixels": dict(
                    zip(data.classes.names, examination.class_pixels(images).tolist(), strict=True)
                ),
            }
            for split, images in examination.by_split().items()
        },
        "bands": list(band_rows(examination)),
    }


def band_rows(examination: Examination) -> Iterator[dict[str, Any]]:
    """Yield name, lowest, highest, mean and standard deviation of each band over the set."""
    if examination.bands is None:
        return
    names = examination.bands.names
    used = [f.bands for f in examination.images if f.bands is not None]
    used = [bands for bands in used if len(bands.count) == len(names) and bands.count.any()]
    for number, name in enumerate(names):
        count = sum(int(bands.count[number]) for bands in used)
        if not count:
            continue
        mean = sum(float(bands.total[number]) for bands in used) / count
        square = sum(float(bands.squares[number]) for bands in used) / count
        yield {
            "name": name,
            "lowest": min(float(bands.lowest[number]) for bands in used),
            "highest": max(float(bands.highest[number]) for bands in used),
            "mean": round(mean, 6),
            "std": round(max(square - mean * mean, 0.0) ** 0.5, 6),
        }


def headline(diagnosis: Diagnosis) -> str:
    """Return a line about the data set."""
    examination = diagnosis.examination
    if examination is None:
        return f"{diagnosis.name} in {diagnosis.root}: nothing to examine"
    data = examination.data
    splits = ", ".join(f"{name} {len(images)}" for name, images in examination.by_split().items())
    kind = "" if data.layout == "folder" else f", layout {data.layout}, splits {data.splits}"
    return f"{diagnosis.name} in {diagnosis.root}: {len(data.images)} images ({splits}){kind}"


def _told(severity: str, finding: Finding, diagnosis: Diagnosis) -> str:
    lines = [f"{severity:<8} {finding.what} [{finding.code}]"]
    named = [_place(place, diagnosis) for place in finding.places[:TOLD]]
    if named:
        more = len(finding.places) - TOLD
        lines.append(f"         in {', '.join(named)}" + (f" and {more} more" if more > 0 else ""))
    return "\n".join([*lines, f"         -> {finding.fix}"])


def _place(place: Any, diagnosis: Diagnosis) -> str:
    name = relative(place.file, diagnosis.root)
    if place.row is None:
        return name
    if place.column is None:
        return f"{name} (line {place.row})"
    return f"{name} (row {place.row}, column {place.column})"


def verdict(diagnosis: Diagnosis) -> str:
    """Return how many findings there are."""
    if not diagnosis.findings:
        return "nothing wrong was found"
    numbers = [(diagnosis.count(kind), kind) for kind in ("error", "warning", "note")]
    told = [f"{number} {kind}{'s' * (number > 1)}" for number, kind in numbers if number]
    return ", ".join(told)
