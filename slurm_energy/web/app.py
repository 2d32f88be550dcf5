"""The pages by their paths: files that hold no data, and JSON that is given to who has the token."""

from __future__ import annotations

import hmac
from importlib.resources import files

import msgspec

from slurm_energy.web.history import History
from slurm_energy.web.live import Live
from slurm_energy.web.server import Request, Response

SCRIPTS = ("app", "ask", "charts", "ledger", "live", "numbers", "page")
_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
JSON = "application/json"


class App:
    """Answers requests. token: what the page has to say for data; empty: anybody who reaches it gets them."""

    def __init__(self, live: Live, history: History, token: str = "") -> None:
        folder = files("slurm_energy.web") / "static"
        self._files = {path: Response((folder / name).read_bytes(), kind) for path, (name, kind) in _STATIC.items()}
        self.live, self.history, self.token = live, history, token

    def __call__(self, request: Request) -> Response:
        """The answer to a request."""
        if request.path in self._files:
            return self._files[request.path]
        if not request.path.startswith("/api/"):
            return Response(b"no such page\n", status=404)
        said = request.authorization.encode("utf-8", "replace")
        if self.token and not hmac.compare_digest(said, f"Bearer {self.token}".encode()):
            return _json({"error": "open the address that `senergy web` printed: it has the token"}, 401)
        if request.path == "/api/live":
            return _json(self.live.read())
        if request.path == "/api/months":
            return _json(self.history.months())
        if request.path == "/api/projects":
            return _json(self.history.projects(request.query.get("month", "")))
        return _json({"error": "no such page"}, 404)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), JSON, status)
