"""The Python examples on the pages about encoders and time series, run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"^```python\n(.+?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(page, code, id=f"{page}-{number}")
    for page in ("encoders", "plainmamba", "tsm2")
    for number, code in enumerate(EXAMPLE.findall((DOCS / f"{page}.md").read_text("utf-8")))
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_an_example_of_a_page_runs_as_it_stands(page, code):
    exec(compile(code, f"{page}.md", "exec"), {})
