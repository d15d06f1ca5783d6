"""Where the API server is and how to prove who we are, from a kubeconfig or from the Pod's service account.

This is not the official client on purpose: importing it costs 18 MB of resident memory (kopf imports it by itself as
soon as it is installed), and a call through it costs four times the CPU of the same call through aiohttp.
"""

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from yarl import URL

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_MAX_AGE = 60.0
"""Seconds that a token read from a file is used; the kubelet replaces the file long before the token ends."""
EXEC_TIMEOUT = 60.0
Authorization = Callable[[bool], Awaitable[str | None]]
"""Gives the Authorization header; True asks for a fresh one because the last was refused."""


class ConnectionConfigError(Exception):
    """The kubeconfig or the service account cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Connection:
    """An API server and the credentials for it."""

    server: str
    ssl: ssl.SSLContext | bool
    authorization: Authorization
    namespace: str = "default"
    server_hostname: str | None = None

    def session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """A new HTTP session. Every request carries current credentials; a 401 renews them and is tried once more."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.ssl, limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "slmops"},
            middlewares=(*middlewares, self._authenticate),
            timeout=aiohttp.ClientTimeout(total=30, sock_connect=5),
        )

    async def _authenticate(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if request.url.origin() != URL(self.server).origin():
            return await handler(request)  # a redirect: credentials are for the API server alone (CVE-2022-3172)
        if self.server_hostname:
            request.server_hostname = self.server_hostname
        for renew in (False, True):
            try:
                header = await self.authorization(renew)
            except (ConnectionConfigError, OSError) as error:
                # As a lost connection it is tried again by everybody; the file or the plugin may work in a moment.
                raise aiohttp.ClientConnectionError(f"no credentials: {error}") from None
            if header:
                request.headers["Authorization"] = header
            response = await handler(request)
            if response.status != 401 or renew:
                return response
            response.release()
        raise AssertionError("unreachable")


def load(environ: Mapping[str, str] = os.environ, service_account: Path = SERVICE_ACCOUNT) -> Connection:
    """The connection that ``KUBECONFIG`` names, else that of the Pod's service account, else ``~/.kube/config``."""
    if environ.get("KUBECONFIG"):
        return from_kubeconfig([Path(part).expanduser() for part in environ["KUBECONFIG"].split(os.pathsep) if part])
    if environ.get("KUBERNETES_SERVICE_HOST") and (service_account / "token").exists():
        return from_service_account(environ, service_account)
    default = Path("~/.kube/config").expanduser()
    if default.exists():
        return from_kubeconfig([default])
    raise ConnectionConfigError(
        "no Kubernetes API server is known: set KUBECONFIG to a kubeconfig file, or run in a Pod with a service account"
    )


def from_service_account(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Connection:
    """The connection that every Pod with a mounted token has."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = folder / "namespace"
    with _reading(str(folder / "ca.crt")):
        context = _trusting(cafile=folder / "ca.crt")
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ssl=context,
        authorization=_token_file(folder / "token"),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )


def from_kubeconfig(paths: list[Path], context: str | None = None) -> Connection:
    """The connection of a kubeconfig's current context; of several files, the first to name something wins."""
    config = _merge(paths)
    current = context or config["current-context"]
    if not current:
        raise ConnectionConfigError(f"{_join(paths)}: no current-context; set one with kubectl config use-context")
    chosen = _entry(config, "contexts", current, paths)
    cluster = _entry(config, "clusters", chosen.get("cluster", ""), paths)
    user = _entry(config, "users", chosen["user"], paths) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise ConnectionConfigError(f"{_join(paths)}: cluster {chosen.get('cluster')!r} has no server")
    with _reading(f"{_join(paths)}: context {current!r}"):
        server = cluster["server"].rstrip("/")
        return Connection(
            server=server,
            ssl=_ssl_context(cluster, user) if server.startswith("https://") else False,
            authorization=_authorization(user),
            namespace=chosen.get("namespace") or "default",
            server_hostname=cluster.get("tls-server-name"),
        )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say which part of the configuration is bad. The errors caught name types, fields and files, never contents."""
    try:
        yield
    except ConnectionConfigError as error:
        raise ConnectionConfigError(f"{what}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConnectionConfigError(f"{what} cannot be used ({type(error).__name__}: {error})") from None


def _merge(paths: list[Path]) -> dict[str, Any]:
    merged: dict[str, Any] = {"current-context": "", "contexts": {}, "clusters": {}, "users": {}}
    found = [path for path in paths if path.exists()]
    if not found:
        raise ConnectionConfigError(f"{_join(paths)}: no such kubeconfig")
    for path in found:
        try:
            content = yaml.safe_load(path.read_text()) or {}
            merged["current-context"] = merged["current-context"] or content.get("current-context", "")
            for section, field in (("contexts", "context"), ("clusters", "cluster"), ("users", "user")):
                for item in content.get(section) or ():
                    merged[section].setdefault(item["name"], {**(item.get(field) or {}), "_folder": path.parent})
        except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            raise ConnectionConfigError(f"{path}: not a kubeconfig ({type(error).__name__})") from None
    return merged


def _entry(config: dict[str, Any], section: str, name: str, paths: list[Path]) -> dict[str, Any]:
    if not isinstance(name, str) or name not in config[section]:
        raise ConnectionConfigError(f"{_join(paths)}: {section} has no entry {name!r}")
    entry: dict[str, Any] = config[section][name]
    return entry


def _join(paths: list[Path]) -> str:
    return os.pathsep.join(str(path) for path in paths)


def _trusting(cafile: Path | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """A context that checks the chain and the name, but not the authority's form.

    Authorities made before strict checks were common (Python asks for them since 3.13) have no key usage extension,
    and every other Kubernetes client takes them.
    """
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _ssl_context(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authority = _pem(cluster, "certificate-authority")
    with _reading("certificate-authority"):
        context = _trusting(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    if bool(certificate) != bool(key):
        raise ConnectionConfigError("client-certificate and client-key go together, and one of them is not set")
    if certificate and key:
        # The ssl module reads client certificates from files alone; this one is readable by us only, and short-lived.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            with _reading("client-certificate with client-key"):
                context.load_cert_chain(file.name)
    return context


def _pem(entry: dict[str, Any], field: str) -> bytes | None:
    if entry.get(f"{field}-data"):
        with _reading(f"{field}-data"):
            return base64.b64decode("".join(entry[f"{field}-data"].split()), validate=True)
    with _reading(field):
        return (entry["_folder"] / entry[field]).read_bytes() if entry.get(field) else None


def _authorization(user: dict[str, Any]) -> Authorization:
    if user.get("exec"):
        return _exec_plugin(user["exec"], user["_folder"])
    if user.get("auth-provider"):
        raise ConnectionConfigError("auth-provider is no longer part of Kubernetes; use an exec credential plugin")
    if user.get("tokenFile"):
        return _token_file(user["_folder"] / user["tokenFile"])
    header = None
    if user.get("token"):
        header = _bearer(user["token"], "token")
    elif user.get("username"):
        header = aiohttp.encode_basic_auth(user["username"], user.get("password", ""))

    async def fixed(renew: bool) -> str | None:
        return header

    return fixed


def _token_file(path: Path) -> Authorization:
    header, read_at = "", 0.0

    async def read(renew: bool) -> str | None:
        nonlocal header, read_at
        if renew or not header or time.monotonic() - read_at > TOKEN_MAX_AGE:
            with _reading(str(path)):
                text = path.read_text()  # noqa: ASYNC240  (tmpfs)
            header, read_at = _bearer(text, str(path)), time.monotonic()
        return header

    return read


def _bearer(token: str, where: str) -> str:
    """The header for a token. Files and YAML blocks end in a newline, which no header may have."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConnectionConfigError(f"{where}: holds no token")
    return f"Bearer {token}"


def _exec_plugin(config: dict[str, Any], folder: Path) -> Authorization:
    """Credential plugins as ``client.authentication.k8s.io`` defines them; tokens only."""
    header, expires = "", 0.0
    command = config["command"]
    if "/" in command:
        command = str(folder / command)
    environment = os.environ | {item["name"]: item["value"] for item in config.get("env") or ()}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": config.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    lock = asyncio.Lock()

    async def run(renew: bool) -> str | None:
        nonlocal header, expires
        async with lock:
            if renew or not header or time.time() > expires - 30:
                try:
                    process = await asyncio.create_subprocess_exec(
                        command, *(config.get("args") or ()), env=environment, stdout=asyncio.subprocess.PIPE
                    )
                    try:
                        output, _ = await asyncio.wait_for(process.communicate(), EXEC_TIMEOUT)
                    except TimeoutError:
                        process.kill()
                        raise
                    status = json.loads(output)["status"]
                    new = _bearer(status["token"], command)
                    ends = status.get("expirationTimestamp")
                    expires = datetime.fromisoformat(ends).timestamp() if ends else float("inf")
                    header = new
                except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                    hint = config.get("installHint") or "run it by hand to see why"
                    raise ConnectionConfigError(
                        f"credential plugin {command} gave no token ({type(error).__name__}): {hint}"
                    ) from None
        return header

    return run
