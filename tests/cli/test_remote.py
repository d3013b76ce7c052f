"""Scenes behind a network: a server on this machine, with and without ranges, and none at all."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cvmh.geo.raster import Raster

# In a process of its own: while GDAL waits for an answer, no other thread of Python may run.
SERVE = """
import http.server, re, sys
from pathlib import Path
from urllib.parse import unquote

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(is_head=True)

    def do_GET(self):
        self.answer(is_head=False)

    def answer(self, is_head):
        path = Path("far", unquote(self.path.partition("?")[0]).lstrip("/"))
        content, status = (path.read_bytes(), 200) if path.is_file() else (b"", 404)
        start, end = 0, len(content)
        asked = re.match(r"bytes=(\\d+)-(\\d*)", self.headers.get("Range", ""))
        if asked and status == 200 and sys.argv[1] == "ranges":
            start, status = min(int(asked[1]), end), 206
            end = min(end, int(asked[2]) + 1) if asked[2] else end
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if not is_head:
            self.wfile.write(content[start:end])

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Server(NamedTuple):
    """Where a folder is served, and whether parts of its files are."""

    url: str
    has_ranges: bool


@pytest.fixture(params=["ranges", "no ranges"])
def server(request, start_python, monkeypatch):
    """Serve the folder ``far`` of the current one."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # A test that hangs says nothing.
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "20")
    process = start_python("-c", SERVE, request.param)
    port = int(process.stdout.readline())
    return Server(f"http://127.0.0.1:{port}", request.param == "ranges")


def test_a_scene_is_predicted_from_its_address(
    cvmh, make_scene, tiny_bundle, server, visible, tmp_path
):
    scene = make_scene("far/my scene.tif", height=90, width=70)
    assert cvmh("predict", scene, "-o", "near.tif", "--checkpoint", tiny_bundle).code == 0
    url = f"{server.url}/my%20scene.tif?token=1"
    (tmp_path / "masks").mkdir()
    outcome = cvmh("predict", url, "-o", "masks", "--checkpoint", tiny_bundle)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == str(Path("masks") / "my scene.tif")
    with Raster("near.tif") as near, Raster("masks/my scene.tif") as far:
        np.testing.assert_array_equal(near.read(), far.read())
        assert near.transform == far.transform and near.crs == far.crs
    outcome = cvmh("predict", url, "-o", "masks", "--checkpoint", tiny_bundle, "--resume")
    assert "is complete, nothing to do" in outcome.stderr
    assert visible(tmp_path / "masks") == {"my scene.tif"}


def test_addresses_that_lead_nowhere_are_named_and_do_not_stop_the_others(
    cvmh, make_scene, tiny_bundle, server, visible, tmp_path
):
    make_scene("far/good.tif", height=40, width=40)
    (tmp_path / "far" / "text.tif").write_text("not a raster")
    urls = [f"{server.url}/{name}.tif" for name in ("gone", "good", "text")]
    # Nobody listens at port 9.
    urls.append("http://127.0.0.1:9/dead.tif")
    (tmp_path / "scenes.txt").write_text("\n".join(urls))
    outcome = cvmh("predict", "scenes.txt", "-o", "masks", "--checkpoint", tiny_bundle)
    assert outcome.code == 3
    assert visible(tmp_path / "masks") == {"good.tif"}
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("cvmh: error: ")]
    assert len(errors) == 3
    for url, error in zip((urls[0], urls[2], urls[3]), errors, strict=True):
        assert error.startswith(f"cvmh: error: {url}: ") and "cannot be opened" in error
    assert not list((tmp_path / "masks").glob(".*"))


def test_a_scene_that_is_cut_off_at_its_address_is_named(
    cvmh, make_scene, tiny_bundle, server, tmp_path
):
    scene = make_scene("far/scene.tif", height=300, width=300)
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 2])
    url = f"{server.url}/scene.tif"
    outcome = cvmh("predict", url, "-o", "mask.tif", "--checkpoint", tiny_bundle)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith(f"cvmh: error: {url} is damaged or cut off: rows ")
    assert not (tmp_path / "mask.tif").exists()
