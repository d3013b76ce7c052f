from html.parser import HTMLParser

import numpy as np
import pytest

from cvmh.page import (
    Html,
    element,
    escaped,
    figure,
    folded,
    joined,
    picture,
    section,
    swatch,
    table,
    write_page,
)

HOSTILE = "<script>alert('x')</script> & \"more\""
VOID = {"meta", "img", "br", "hr", "path", "link"}


class Reader(HTMLParser):
    """Reads a page, and notes what is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text, self.wrong = [], [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text += data


def test_text_is_escaped_once_and_html_is_left_alone():
    assert (
        escaped(HOSTILE)
        == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;more&quot;"
    )
    assert escaped(escaped(HOSTILE)) == escaped(HOSTILE)
    assert joined(["<", Html("<b>x</b>")]) == "&lt;<b>x</b>"
    assert element("p", "1 < 2", attributes={"title": '"'}) == '<p title="&quot;">1 &lt; 2</p>'


def test_a_page_of_hostile_names_is_well_formed_and_holds_them_as_text():
    page = write_page(
        HOSTILE,
        section(HOSTILE, folded(HOSTILE, HOSTILE), anchor="first"),
        table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], caption=HOSTILE),
        figure(picture(np.zeros((2, 3), np.uint8), alt=HOSTILE), caption=HOSTILE),
    )
    reader = Reader(page)
    assert reader.open == reader.wrong == []
    assert "script" not in {tag for tag, _ in reader.seen}
    assert reader.text.count(HOSTILE) == 10
    (image,) = [attributes for tag, attributes in reader.seen if tag == "img"]
    assert image["alt"] == HOSTILE and (image["width"], image["height"]) == ("3", "2")


def test_a_page_needs_no_other_file_and_no_script():
    reader = Reader(write_page("title", element("p", "text")))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in reader.seen}
    assert "http" not in reader.text and "@import" not in reader.text and "url(" not in reader.text
    assert "prefers-color-scheme: dark" in reader.text and "@media print" in reader.text


def test_tables_have_headers_with_a_scope_and_a_caption():
    reader = Reader(table(["class", "IoU"], [["tree", "50.0"], ["car", "-"]], caption="scores"))
    scopes = [attributes["scope"] for tag, attributes in reader.seen if tag == "th"]
    assert scopes == ["col", "col", "row", "row"]
    assert "caption" in {tag for tag, _ in reader.seen}


@pytest.mark.parametrize("kind", ["", "text"])
def test_a_kind_of_table_is_a_class_of_the_style(kind):
    (found,) = [
        a for tag, a in Reader(table(["a"], [["b"]], caption="c", kind=kind)).seen if tag == "table"
    ]
    assert found.get("class", "") == kind


def test_a_swatch_shows_its_colour_and_says_nothing():
    assert 'style="background:rgb(1,2,3)"' in swatch((1, 2, 3))
    assert 'aria-hidden="true"' in swatch((1, 2, 3))
