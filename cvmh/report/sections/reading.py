"""How to read an evaluation's page."""

from cvmh.page import Html, element, joined, section

TERMS = (
    (
        "IoU, F1",
        "Of all pixels that are labelled or predicted as a class, IoU is the share that is both. "
        "F1 is the harmonic mean of precision (how much of what is predicted is right) and recall "
        "(how much of what is labelled is found). Means are over classes, whatever their size.",
    ),
    (
        "Overall accuracy, kappa",
        "The share of all labelled pixels that are right: large classes decide it. Kappa takes off "
        "what would be right by chance.",
    ),
    (
        "Protocol",
        "Which images are scored, with which labels, which classes enter the means, and whether "
        "flipped and turned images are averaged. Scores of different protocols do not compare; the "
        "same network can differ by five points and more.",
    ),
    (
        "Boundary scores",
        "IoU and F1 of the pixels along the borders of classes only, at the width given. Small "
        "objects and ragged outlines show here.",
    ),
    (
        "Confusion",
        "Follow a row: of the pixels that are labelled so, this is what they are predicted as. "
        "Blue cells are right, orange ones are mistakes; strong orange cells are the two classes "
        "to look at first.",
    ),
    (
        "Reliability",
        "When the network is 80 % sure, it should be right in 80 % of the pixels: the line should "
        "lie on the diagonal. Below it, the network is too sure. ECE is the mean distance.",
    ),
    (
        "Areas",
        "Counting the pixels of a mask gives wrong areas where mistakes do not cancel out. The "
        "estimate corrects for the mistakes found in the labelled images, and its interval covers "
        "what they cannot tell. It holds for ground like that of the images scored.",
    ),
    (
        "Worst and best windows",
        "The windows with the largest and the smallest share of wrong pixels, of those that are "
        "labelled at least by half; the best have two classes or more if there are such. A window "
        "that is wrong may have a wrong label: look before you blame the network.",
    ),
)


def reading_section() -> Html:
    """Return what the figures and pictures of the page mean."""
    items = joined(joined([element("dt", term), element("dd", text)]) for term, text in TERMS)
    return section("How to read this", element("dl", items), anchor="reading")
