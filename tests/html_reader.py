"""Reading pages as a browser would, to look at what is in them."""

from html.parser import HTMLParser

# Elements of HTML that have no end; elements of SVG end themselves with "/>".
VOID = {"meta", "img", "br", "hr"}


class HtmlReader(HTMLParser):
    """Reads a page; ``wrong`` holds what is closed in the wrong order or not at all."""

    def __init__(self, page):
        super().__init__()
        self._open, self.elements, self.style, self.wrong = [], [], "", []
        # Pieces of text between elements, and the cells of all rows of tables.
        self.pieces, self.rows = [], []
        self.feed(page)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.pieces.append(data)
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        """All text, one piece after another."""
        return "".join(self.pieces)

    def of(self, *tags):
        """Return the attributes of all elements of some kinds."""
        return [attributes for tag, attributes in self.elements if tag in tags]

    def addresses(self):
        """Return all that a browser would fetch or follow."""
        found = [a[key] for _, a in self.elements for key in ("src", "href", "data") if key in a]
        return found + [a["style"] for _, a in self.elements if "url(" in a.get("style", "")]
