"""Work that runs ahead in a thread of its own."""

import threading
from collections.abc import Callable, Generator, Iterable
from queue import Empty, Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")
# How long a thread waits before it looks whether it is still wanted, in seconds.
PATIENCE = 0.1


def ahead(
    items: Iterable[T], *, depth: int, stop: Callable[[], None] | None = None
) -> Generator[T, None, None]:
    """Yield items that a thread takes from an iterable, up to ``depth`` of them in advance.

    An error in the iterable is raised here, after the items before it. When the generator is
    closed, the thread ends with the item that it is at; ``stop`` is called first, so that an
    iterable that seeks long for its next item can give up.
    """
    queue: Queue[Any] = Queue(maxsize=depth)
    stopped = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=PATIENCE)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))

    thread = threading.Thread(target=work, name="cvmh-read", daemon=True)
    thread.start()
    try:
        while True:
            # With a timeout, so that a signal is heard while the thread reads.
            try:
                item, error = queue.get(timeout=PATIENCE)
            except Empty:
                continue
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stopped.set()
        if stop is not None:
            stop()
        thread.join()
