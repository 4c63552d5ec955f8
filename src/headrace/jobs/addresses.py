"""Which URLs a webhook may have, and which addresses may be called.

A webhook makes the server send a request to a place that a caller names. Unless the operator allows it, that must not
be a place which only the server can reach: private, loopback and link-local addresses are refused, for every address
that a name resolves to, and the connection is made to the very address that was checked. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from headrace.core.errors import BadRequest, HeadraceError

_LONGEST_URL = 2048
_PORTS = {"http": 80, "https": 443}


class ForbiddenAddress(HeadraceError):
    """The webhook's host is, or resolves to, an address that may not be called."""


def check_webhook(url: str, *, allow_private: bool) -> None:
    """Raises `BadRequest` unless `url` may be called, as far as that can be said without resolving its host."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    odd = any(character.isspace() or not character.isprintable() for character in url)
    if odd or host is None or parts.scheme not in _PORTS or len(url) > _LONGEST_URL or parts.username is not None:
        raise BadRequest(
            f"webhook must be an http:// or https:// URL of at most {_LONGEST_URL} characters, without a user name.",
            parameter="webhook",
            value=url,
        )
    if not allow_private and (host == "localhost" or not _literal_is_public(host)):
        raise BadRequest(
            "webhook names a private or loopback address; the server calls those only with --job-webhook-private.",
            parameter="webhook",
            value=url,
        )


async def resolve(url: str, *, allow_private: bool) -> str:
    """The address to connect to. Raises `ForbiddenAddress`, and `OSError` if the host has none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not allow_private and not all(_is_public(ipaddress.ip_address(address)) for address in addresses):
        raise ForbiddenAddress(f"{host} is at a private or loopback address.")
    return addresses[0]


def _literal_is_public(host: str) -> bool:
    """A name passes: it is looked at when it is called."""
    try:
        return _is_public(ipaddress.ip_address(host))
    except ValueError:
        return True


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if inside is not None and not inside.is_global:
            return False
    return address.is_global and not address.is_multicast
