"""Fetching against a server of our own, which breaks transfers as real ones do."""

import dataclasses
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from cvmh.errors import OutputError, WeightsError
from cvmh.models.weights import fetching
from cvmh.models.weights.catalogue import CATALOGUE
from cvmh.models.weights.fetching import fetch
from cvmh.models.weights.finding import find_weights

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves what ``answers`` has for a path, and notes the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = {}, []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        self.server.answers[self.path](self)

    def log_message(self, *arguments):
        pass

    def answer(self, code, *, send=b"", length=None, **headers):
        """Answer, with the headers named; a length may promise more than is sent."""
        self.send_response(code)
        if length is not False:
            self.send_header("Content-Length", str(len(send) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(send)
        self.close_connection = True


def whole(handler, **headers):
    handler.answer(200, send=CONTENT, **headers)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(server, tmp_path):
    """Return a function that fetches what some answer gives, and the file."""

    def get(answer, **options):
        server.answers["/w.pth"] = answer
        fetch(f"{server.address}/w.pth", tmp_path / "folder" / "w.pth", **options)
        return (tmp_path / "folder" / "w.pth").read_bytes()

    return get


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "folder").iterdir())


def test_a_file_arrives_and_its_megabytes_are_told(get, tmp_path):
    told = []
    assert get(whole, progress=lambda *row: told.append(row)) == CONTENT
    assert left(tmp_path) == ["w.pth"]
    assert told[-1] == ("fetching", 6, 6, "MB") and len(told) > 1


def test_a_server_that_tells_no_length_is_believed(get):
    assert get(lambda handler: handler.answer(200, send=CONTENT, length=False)) == CONTENT


def test_a_broken_transfer_goes_on_where_it_ended(get, server, tmp_path):
    half = len(CONTENT) // 2

    def answer(handler):
        asked = handler.headers.get("Range")
        if asked is None:
            handler.answer(200, send=CONTENT[:half], length=len(CONTENT), ETag='"one"')
        else:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            assert handler.headers["If-Range"] == '"one"'
            handler.answer(206, send=CONTENT[start:], ETag='"one"')

    assert get(answer) == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, f"bytes={half}-"]
    assert left(tmp_path) == ["w.pth"]


def test_a_server_that_cannot_go_on_begins_again(get, server):
    def answer(handler):
        if len(server.requests) == 1:
            handler.answer(200, send=CONTENT[:1000], length=len(CONTENT), ETag='"one"')
        else:
            whole(handler, ETag='"two"')

    assert get(answer) == CONTENT


def test_a_transfer_that_always_breaks_leaves_nothing(get, server, tmp_path):
    def answer(handler):
        handler.answer(200, send=CONTENT[:1000], length=len(CONTENT))

    with pytest.raises(WeightsError, match=r"ended after 1000 of 5120000 bytes; fetch it with a b"):
        get(answer)
    assert len(server.requests) == fetching.ATTEMPTS
    assert left(tmp_path) == []


@pytest.mark.parametrize(("code", "times"), [(404, 1), (403, 1), (429, 4), (503, 4)])
def test_an_error_of_the_server_is_told_and_tried_again_where_it_may_pass(
    get, server, tmp_path, code, times
):
    with pytest.raises(WeightsError, match=rf"answers {code} .*; fetch it with a browser.*w\.pth"):
        get(lambda handler: handler.answer(code))
    assert len(server.requests) == times
    assert left(tmp_path) == []


def test_a_web_page_is_no_file(get, tmp_path):
    page = b"<!doctype html>Sign in"
    with pytest.raises(WeightsError, match=r"gives a web page, not a file.*login or a click"):
        get(lambda handler: handler.answer(200, send=page, Content_Type="text/html; charset=x"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("where", ["mark", "weak mark", "first server", "catalogue"])
def test_a_known_sha256_is_compared(get, server, tmp_path, where):
    def answer(sha256):
        headers = {"mark": {"ETag": f'"{sha256}"'}, "weak mark": {"ETag": f'W/"{sha256}"'}}
        if where != "first server":
            return lambda handler: whole(handler, **headers.get(where, {}))
        server.answers["/there"] = lambda handler: whole(handler, ETag='"d41d"')
        location = {"Location": "/there", "X_Linked_Etag": f'"{sha256}"'}
        return lambda handler: handler.answer(302, **location)

    wrong = "0" * 64
    options = [{"sha256": value} if where == "catalogue" else {} for value in (SHA256, wrong)]
    with pytest.raises(WeightsError, match=rf"sha256 {SHA256}, it must be {wrong}"):
        get(answer(wrong), **options[1])
    assert left(tmp_path) == []
    assert get(answer(SHA256), **options[0]) == CONTENT


def test_a_file_that_fails_the_check_is_not_kept(get, tmp_path):
    def check(path):
        assert path.read_bytes() == CONTENT
        raise WeightsError("not the wanted one")

    with pytest.raises(WeightsError, match="not the wanted one"):
        get(whole, check=check)
    assert left(tmp_path) == []


def test_nobody_at_the_address_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9/w cannot be reached \(.*ref"):
        fetch("http://127.0.0.1:9/w", tmp_path / "w")


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_fetched(get, server, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(OutputError, match="folder"):
        get(whole)
    assert server.requests == []


def test_a_name_arrives_from_a_server_that_breaks_and_is_recognised(
    server, tmp_path, monkeypatch, published, flat
):
    name = "vmamba_tiny_s1l8"
    torch.save({"model": flat(published.vmamba(name))}, tmp_path / "made.pth")
    content = (tmp_path / "made.pth").read_bytes()

    def answer(handler):
        asked = handler.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        part = content[start : start + 20_000]
        code = 206 if start else 200
        handler.answer(code, send=part, length=len(content) - start, ETag='"one"')

    server.answers["/w.pth"] = answer
    known = dataclasses.replace(CATALOGUE[name], address=f"{server.address}/w.pth")
    monkeypatch.setitem(CATALOGUE, name, known)
    monkeypatch.setenv("CVMH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("CVMH_OFFLINE", raising=False)
    monkeypatch.setattr(fetching, "ATTEMPTS", 20)
    found = find_weights(name)
    assert found.path.read_bytes() == content and len(server.requests) > 1
    sha256 = hashlib.sha256(content).hexdigest()
    assert (tmp_path / "weights" / "SHA256SUMS").read_text() == f"{sha256}  {known.file}\n"
