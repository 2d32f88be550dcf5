"""The web configuration file that Prometheus' exporters share: TLS, basic authentication, response headers.

tls_server_config: {cert_file, key_file, client_auth_type, client_ca_file, min_version, max_version}
basic_auth_users: {name: bcrypt hash}
http_server_config: {headers: {name: value}}
"""

from __future__ import annotations

import re
import ssl
import string
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

VERSIONS = {
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
OLD_VERSIONS = ("TLS10", "TLS11")
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
HEADERS = (
    "Content-Security-Policy", "Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options", "X-XSS-Protection",
)  # fmt: skip
TLS_KEYS = ("cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version")
NO_EFFECT = ("prefer_server_cipher_suites",)
"""Accepted, as Go does since its version 1.17, and without effect."""
NOT_HERE = ("cert", "key", "client_ca", "cipher_suites", "curve_preferences", "client_allowed_sans")
PARTS = ("tls_server_config", "basic_auth_users", "http_server_config")
BCRYPT = re.compile(r"\$2[abxy]?\$(\d\d)\$[./A-Za-z0-9]{53}")
MOST_COST = 16
"""A check at this cost takes seconds already."""


class WebConfigError(Exception):
    """What is wrong in the file, where, and what was expected: one line."""


class Tls(NamedTuple):
    """tls_server_config; file names are relative to the configuration file."""

    cert_file: Path
    key_file: Path
    client_auth_type: str
    client_ca_file: Path | None
    min_version: str
    max_version: str


class WebConfig(NamedTuple):
    """The whole file. An empty one is plain HTTP without passwords."""

    tls: Tls | None = None
    users: Mapping[str, str] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})

    @property
    def files(self) -> list[Path]:
        """Certificates and keys."""
        named = (self.tls.cert_file, self.tls.key_file, self.tls.client_ca_file) if self.tls else ()
        return [file for file in named if file]


def read(path: Path) -> WebConfig:
    """Raises WebConfigError."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WebConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        data = yaml.load(text, _loader())  # noqa: S506 - a SafeLoader
        return _whole(data, path.parent)
    except yaml.YAMLError as error:
        raise WebConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise WebConfigError(f"{path}: nested too deeply") from error
    except WebConfigError as error:
        raise WebConfigError(f"{path}: {error}") from None


def _loader() -> Any:
    """A SafeLoader that refuses a key that is there twice: one of its values, the passwords for example, would not count."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            if isinstance(node, yaml.MappingNode):
                keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                twice = next((key for key in keys if keys.count(key) > 1), None)
                if twice is not None:
                    where = f"in the table at line {node.start_mark.line + 1}"
                    raise WebConfigError(f"{twice}: there more than once {where}; expected once")
            return super().construct_mapping(node, deep)

    return Loader


def context(tls: Tls) -> ssl.SSLContext:
    """Loads certificates and keys. Raises WebConfigError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = VERSIONS[tls.min_version]
    made.maximum_version = VERSIONS[tls.max_version]
    made.verify_mode = CLIENT_AUTH[tls.client_auth_type]
    made.options |= ssl.OP_NO_RENEGOTIATION
    for file in (tls.cert_file, tls.key_file, tls.client_ca_file):
        try:
            if file:
                file.open("rb").close()
        except OSError as error:
            raise WebConfigError(f"{file}: {error.strerror}") from error
    try:
        # An empty password instead of a question on the terminal, where the key has one.
        made.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except (ssl.SSLError, ValueError) as error:
        raise WebConfigError(
            f"{tls.cert_file}, {tls.key_file}: no certificate with its unencrypted key, in PEM: {error}"
        ) from error
    if tls.client_ca_file:
        try:
            made.load_verify_locations(tls.client_ca_file)
        except ssl.SSLError as error:
            raise WebConfigError(f"{tls.client_ca_file}: no certificates in PEM: {error}") from error
    return made


def _whole(data: Any, folder: Path) -> WebConfig:
    if isinstance(data, dict) and "rate_limit" in data:
        raise WebConfigError(
            f"rate_limit: not supported by this exporter, whose work has bounds; expected {', '.join(PARTS)}"
        )
    parts = _table(data, "", PARTS)
    users = _table(parts.get("basic_auth_users"), "basic_auth_users")
    for name, hashed in users.items():
        match = BCRYPT.fullmatch(hashed) if isinstance(hashed, str) else None
        if not match or not 4 <= int(match[1]) <= MOST_COST:
            wanted = f"a bcrypt hash of cost 4 to {MOST_COST} (htpasswd -nBC 10 '' prints one)"
            raise WebConfigError(f"basic_auth_users.{name}: expected {wanted}")
        if ":" in name or not name:
            raise WebConfigError(f"basic_auth_users.{name}: expected a name without a colon")
    server = _table(parts.get("http_server_config"), "http_server_config", ("headers", "http2"))
    _truth(server, "http2", "http_server_config")
    headers = _table(server.get("headers"), "http_server_config.headers", HEADERS)
    for name, value in headers.items():
        if not isinstance(value, str) or not all(" " <= char <= "~" for char in value):
            raise WebConfigError(f"http_server_config.headers.{name}: expected one line of ASCII text")
    tls = _tls(parts["tls_server_config"], folder) if parts.get("tls_server_config") is not None else None
    return WebConfig(tls, users, {string.capwords(name, "-"): value for name, value in headers.items()})


def _tls(data: Any, folder: Path) -> Tls:
    where = "tls_server_config"
    if isinstance(data, dict):
        for key in NOT_HERE:
            if key in data:
                raise WebConfigError(f"{where}.{key}: not supported by this exporter; expected {', '.join(TLS_KEYS)}")
    table = _table(data, where, (*TLS_KEYS, *NO_EFFECT))
    for key in TLS_KEYS:
        if key in table and not isinstance(table[key], str):
            raise WebConfigError(f"{where}.{key}: expected text")
    _truth(table, "prefer_server_cipher_suites", where)
    for key in ("cert_file", "key_file"):
        if not table.get(key):
            raise WebConfigError(f"{where}.{key}: missing; expected the name of a PEM file")
    kind, authority = table.get("client_auth_type") or "NoClientCert", table.get("client_ca_file")
    if kind in UNVERIFIED:
        raise WebConfigError(
            f"{where}.client_auth_type: {kind} checks no certificate and is not supported; "
            "expected RequireAndVerifyClientCert"
        )
    _one_of(kind, CLIENT_AUTH, f"{where}.client_auth_type")
    if (kind == "NoClientCert") is bool(authority):
        wanted = "RequireAndVerifyClientCert or VerifyClientCertIfGiven" if authority else "a client_ca_file"
        raise WebConfigError(
            f"{where}: client_auth_type {kind} with{'' if authority else 'out'} client_ca_file; expected {wanted}"
        )
    least, most = table.get("min_version") or "TLS12", table.get("max_version") or "TLS13"
    for key, version in (("min_version", least), ("max_version", most)):
        if version in OLD_VERSIONS:
            raise WebConfigError(
                f"{where}.{key}: {version} is not supported, for OpenSSL as it is set by default completes no handshake of it; "
                "expected TLS12, which is the least, or TLS13"
            )
        _one_of(version, VERSIONS, f"{where}.{key}")
    if VERSIONS[least] > VERSIONS[most]:
        raise WebConfigError(f"{where}.max_version: expected at least min_version, {least}")
    return Tls(
        folder / table["cert_file"], folder / table["key_file"], kind, folder / authority if authority else None, least, most
    )  # fmt: skip


def _one_of(value: str, known: dict[str, Any], where: str) -> None:
    if value not in known:
        raise WebConfigError(f"{where}: {value!r}; expected one of {', '.join(known)}")


def _truth(table: dict[str, Any], key: str, where: str) -> None:
    if not isinstance(table.get(key, True), bool):
        raise WebConfigError(f"{where}.{key}: {table[key]!r}; expected true or false")


def _table(data: Any, where: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table with none but these keys (none given: any text)."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise WebConfigError(f"{where or 'the file'}: expected a table of keys and values")
    for key in data:
        name = f"{where}.{key}" if where else str(key)
        if not isinstance(key, str) or (keys and key not in keys):
            raise WebConfigError(f"{name}: unknown key; expected {'one of ' + ', '.join(keys) if keys else 'text'}")
    return data
