"""The little of HTTP/1.1 that an exporter needs: a request's head, what a client accepts, a response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

HEAD_BYTES = 16384
LINE_BYTES = 4096
MOST_HEADERS = 64
_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*|\*|https?://[!-~]+) HTTP/(\d)\.(\d)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


class Refused(Exception):
    """A request that is answered with this status and the end of the connection."""

    def __init__(self, status: HTTPStatus, **headers: str) -> None:
        super().__init__(status.phrase)
        self.status, self.headers = status, headers


class Request(NamedTuple):
    """A GET or a HEAD. headers: by name in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    keep_alive: bool


class Response(NamedTuple):
    """What a page answers."""

    status: HTTPStatus
    body: bytes
    type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


def parse(head: bytes) -> Request:
    """A request out of its head, the empty line included. Raises Refused."""
    lines = head.decode("latin-1").split("\r\n")[:-2]
    first = lines[0]
    if len(first) > LINE_BYTES:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG)
    if len(lines) > MOST_HEADERS:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    match = _LINE.fullmatch(first)
    if match is None:
        raise Refused(HTTPStatus.BAD_REQUEST)
    method, target, major, minor = match.groups()
    if major != "1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if not colon or not _NAME.fullmatch(name) or any(char < " " and char != "\t" for char in value):
            raise Refused(HTTPStatus.BAD_REQUEST)
        if name in headers and name in ("host", "content-length", "authorization"):
            raise Refused(HTTPStatus.BAD_REQUEST)
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if minor != "0" and "host" not in headers:
        raise Refused(HTTPStatus.BAD_REQUEST)
    if method not in ("GET", "HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)  # nothing here reads a body
    said = [word.strip() for word in headers.get("connection", "").lower().split(",")]
    keep = "keep-alive" in said if minor == "0" else "close" not in said
    path = re.sub(r"^https?://[^/]*", "", target).partition("?")[0] or "/"
    return Request(method, path, headers, keep)


def wants_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1.0.0 is what the client would rather have; the text format where it does not matter."""
    best = {"openmetrics": 0.0, "text": 0.0}
    for item in accept.split(",")[:MOST_HEADERS]:
        kind, parameters = _parameters(item)
        if kind == "application/openmetrics-text" and parameters.get("version", "1.0.0") == "1.0.0":
            best["openmetrics"] = max(best["openmetrics"], _quality(parameters))
        elif kind in ("text/plain", "text/*", "*/*") and parameters.get("version", "0.0.4") == "0.0.4":
            best["text"] = max(best["text"], _quality(parameters))
    return best["openmetrics"] > 0 and best["openmetrics"] >= best["text"]


def wants_gzip(accept_encoding: str) -> bool:
    """Whether the client says that it takes gzip."""
    given = dict(map(_parameters, accept_encoding.split(",")[:MOST_HEADERS]))
    return _quality(given.get("gzip", {"q": "0"})) > 0


def _parameters(item: str) -> tuple[str, dict[str, str]]:
    kind, *rest = item.split(";")
    pairs = (one.partition("=") for one in rest)
    return kind.strip().lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _quality(parameters: Mapping[str, str]) -> float:
    value = parameters.get("q", "1")
    return float(value) if _QUALITY.fullmatch(value) else 0.0


def head_of(response: Response, more: Mapping[str, str], *, keep_alive: bool) -> bytes:
    """Status line and headers of a response."""
    headers = {
        "Content-Type": response.type, "Content-Length": str(len(response.body)),
        **response.headers, **more, "Connection": "keep-alive" if keep_alive else "close",
    }  # fmt: skip
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
