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


def test_text_is_escaped_once_and_html_is_left_alone():
    assert (
        escaped(HOSTILE)
        == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;more&quot;"
    )
    assert escaped(escaped(HOSTILE)) == escaped(HOSTILE)
    assert joined(["<", Html("<b>x</b>")]) == "&lt;<b>x</b>"
    assert element("p", "1 < 2", attributes={"title": '"'}) == '<p title="&quot;">1 &lt; 2</p>'


def test_a_page_of_hostile_names_is_well_formed_and_holds_them_as_text(read_page):
    page = write_page(
        HOSTILE,
        section(HOSTILE, folded(HOSTILE, HOSTILE), anchor="first"),
        table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], caption=HOSTILE),
        figure(picture(np.zeros((2, 3), np.uint8), alt=HOSTILE), caption=HOSTILE),
    )
    reader = read_page(page)
    assert not reader.wrong and not reader.of("script")
    assert reader.text.count(HOSTILE) == 10
    (image,) = reader.of("img")
    assert image["alt"] == HOSTILE and (image["width"], image["height"]) == ("3", "2")


def test_a_page_needs_no_other_file_and_no_script(read_page):
    reader = read_page(write_page("title", element("p", "text")))
    assert not reader.of("script", "link", "iframe") and not reader.addresses()
    for outside in ("http", "@import", "url("):
        assert outside not in reader.style
    assert "prefers-color-scheme: dark" in reader.style and "@media print" in reader.style


def test_tables_have_headers_with_a_scope_and_a_caption(read_page):
    reader = read_page(table(["class", "IoU"], [["tree", "50.0"], ["car", "-"]], caption="scores"))
    assert [attributes["scope"] for attributes in reader.of("th")] == ["col", "col", "row", "row"]
    assert len(reader.of("caption")) == 1
    # What scrolls can be reached by keyboard, and has a name.
    (region,) = reader.of("div")
    assert (region["tabindex"], region["aria-label"]) == ("0", "scores")


@pytest.mark.parametrize("kind", ["", "text"])
def test_a_kind_of_table_is_a_class_of_the_style(kind, read_page):
    (found,) = read_page(table(["a"], [["b"]], caption="c", kind=kind)).of("table")
    assert found.get("class", "") == kind


def test_single_columns_may_hold_text(read_page):
    reader = read_page(table(["a", "b", "c"], [["1", "2", "3"]], caption="t", texts=(2,)))
    assert [cell.get("class") for cell in reader.of("th", "td")] == [None, None, "left"] * 2


def test_a_swatch_shows_its_colour_and_says_nothing():
    assert 'style="background:rgb(1,2,3)"' in swatch((1, 2, 3))
    assert 'aria-hidden="true"' in swatch((1, 2, 3))
