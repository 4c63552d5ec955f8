"""The socket: opened first of all, so that a port in use is known before a model is loaded."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from headrace.config.sections import HttpConfig
from headrace.core.errors import ConfigError, StartupError

_BACKLOG = 2048


@contextlib.contextmanager
def listening_socket(config: HttpConfig) -> Iterator[socket.socket]:
    """A socket that accepts connections; closed, and its file removed, on the way out. Raises `StartupError`."""
    if config.uds is None:
        with _listen_on_port(config.host, config.port) as listener:
            yield listener
        return
    with _listen_on_path(config.uds) as listener:
        try:
            yield listener
        finally:
            config.uds.unlink(missing_ok=True)


def check_tls(config: HttpConfig) -> None:
    """Raises `ConfigError`, naming the flag, unless the TLS files can be used."""
    if config.ssl_certfile is None or config.ssl_keyfile is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password="")
    except (OSError, ssl.SSLError) as problem:
        files = f"{config.ssl_certfile} and {config.ssl_keyfile}"
        raise ConfigError(f"--ssl-certfile and --ssl-keyfile: cannot use {files}: {problem}.") from None
    try:
        if config.ssl_ca_certs is not None:
            context.load_verify_locations(config.ssl_ca_certs)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigError(f"--ssl-ca-certs: cannot use {config.ssl_ca_certs}: {problem}.") from None
    try:
        if config.ssl_ciphers is not None:
            context.set_ciphers(config.ssl_ciphers)
    except ssl.SSLError as problem:
        raise ConfigError(f"--ssl-ciphers: {problem}.") from None


def is_open_to_others(config: HttpConfig) -> bool:
    """Whether machines other than this one can connect."""
    if config.uds is not None or config.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        return True


def url_of(config: HttpConfig, listener: socket.socket) -> str:
    """Where a client on this machine finds the server; `http://localhost` for a Unix socket."""
    scheme = "http" if config.ssl_certfile is None else "https"
    if config.uds is not None:
        return f"{scheme}://localhost{config.root_path}"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        config.host, f"[{config.host}]" if ":" in config.host else config.host
    )
    return f"{scheme}://{host}:{listener.getsockname()[1]}{config.root_path}"


def _listen_on_port(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as problem:
        raise _cannot_listen(f"{host}:{port}", problem, "Choose another port with --port.") from None


def _listen_on_path(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
    except OSError as problem:
        listener.close()
        raise _cannot_listen(str(path), problem, "Choose another path with --uds.") from None
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket that a server left behind when it was killed; one that answers stays."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()


def _cannot_listen(where: str, problem: OSError, hint: str) -> StartupError:
    if problem.errno == errno.EADDRINUSE:
        return StartupError(f"cannot listen on {where}: it is in use, perhaps by another server. {hint}")
    reason = str(problem) if isinstance(problem, socket.gaierror) or not problem.errno else os.strerror(problem.errno)
    return StartupError(f"cannot listen on {where}: {reason}.")
