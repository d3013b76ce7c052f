import threading
import time

import pytest

from cvmh.predict.stream import ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "cvmh-read"]


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_items_come_in_their_order(depth):
    assert list(ahead(range(50), depth=depth)) == list(range(50))
    assert not threads()


def test_no_more_is_taken_in_advance_than_was_allowed():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    stream = ahead(items(), depth=2)
    for expected in range(20):
        assert next(stream) == expected
        time.sleep(0.005)
        # Two wait, and one more is on its way.
        assert len(taken) <= expected + 4
    stream.close()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        for item in ahead(items(), depth=1):
            seen.append(item)
    assert seen == [1, 2]
    assert not threads()


def test_the_thread_ends_when_its_items_are_no_longer_wanted():
    stream = ahead(iter(int, 1), depth=2)
    next(stream)
    assert len(threads()) == 1
    stream.close()
    assert not threads()
