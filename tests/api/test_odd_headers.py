"""Headers that no client library sends: answered in shape, never with a 500."""

from __future__ import annotations

import socket

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

BODY = b'{"input":"Hi.","voice":"anna"}'


def answer(
    running, method: str, path: str, *headers: bytes, body: bytes = b""
) -> tuple[int, bytes]:
    lines = (f"{method} {path} HTTP/1.1".encode(), b"Connection: close", *headers)
    if body:
        lines += (b"Content-Type: application/json", b"Content-Length: %d" % len(body))
    with socket.create_connection((running.server.host, running.server.port), 20) as client:
        client.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        reply = b"".join(iter(lambda: client.recv(65_536), b""))
    head, _, rest = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


@pytest.mark.parametrize(
    "origin", [b"http://[", b"http://[::1", b"http://\xff\xe9/", b"null", b"["]
)
def test_an_origin_that_is_no_url_is_another_origin(running, origin):
    headers = (b"Host: localhost", b"Origin: " + origin)
    status, told = answer(running, "POST", "/v1/audio/speech", *headers, body=BODY)
    assert status == 403
    assert b"origin_not_allowed" in told


def test_a_socket_of_an_origin_that_is_no_url_is_refused(running):
    url = running.server.url.replace("http", "ws") + "/tts/v1/voice:streamBidirectional"
    with pytest.raises(InvalidStatus) as caught, connect(url, origin="http://["):
        pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    "host", [b"[", b"[::1]:x", b"localhost:[", b"localhost:99999999", b"127.1"]
)
@pytest.mark.parametrize("path", ["/nothing", "/v1/audio/speech", "/voices/v1/voices/%00%ff"])
def test_a_host_that_is_none_does_no_harm(running, host, path):
    status, told = answer(running, "GET", path, b"Host: " + host)
    assert status in (403, 404, 405)
    assert told.startswith((b'{"error":', b'{"code":'))


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: " + b"9" * 5000,
        b"Content-Length: -5",
        b"Authorization: Bearer \xff\xfe",
        b"X-Request-Id: \xff",
        b"Accept-Encoding: \xff",
        b"Range: bytes=-",
    ],
)
def test_headers_of_nonsense_do_no_harm(running, header):
    status, _ = answer(running, "GET", "/v1/voices", b"Host: localhost", header)
    assert status in (200, 400)
