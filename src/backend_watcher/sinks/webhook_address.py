"""
Where a webhook may lead: to public addresses over HTTPS, and elsewhere only where somebody allowed it by name. Pure.

The list of what is not public is our own, from the registries of IANA, and not `ipaddress.is_global`: that has changed
its mind between versions of Python. An IPv4 address inside an IPv6 one (mapped, NAT64) counts as what it leads to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from yarl import URL

from backend_watcher.errors import ConfigError

Network: TypeAlias = IPv4Network | IPv6Network

_LIKE = "right would be, for example, 'https://example.com/hooks'"

_NOT_PUBLIC: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), word)
    for network, word in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a provider"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "this host"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        # Inside of what is public: tunnels, which lead who knows where, and documentation.
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a tunnel (6to4)"),
        ("3fff::/20", "for documentation"),
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def read_networks(networks: Sequence[str]) -> tuple[Network, ...]:
    """Read networks such as `10.0.0.0/8`. Raises ConfigError."""
    like = "right would be, for example, ['10.0.0.0/8']"
    if isinstance(networks, str):
        raise ConfigError([f"allow_networks: a text, and a list is wanted; {like}"])
    read: list[Network] = []
    faults = []
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except (ValueError, TypeError):
            faults.append(f"allow_networks: {text!r} is no network; {like}")
            continue
        if network.prefixlen == 0:
            faults.append(f"allow_networks: {text!r} is every address there is; {like}")
        read.append(network)
    if faults:
        raise ConfigError(faults)
    return tuple(read)


def forbidden(address: str, allowed: Sequence[Network]) -> str | None:
    """Say what an address is if a webhook may not reach it: `loopback`, `private`, …; None if it may."""
    try:
        found = _unwrapped(ipaddress.ip_address(address))
    except ValueError:
        return "not an address"
    if any(found in network for network in allowed):
        return None
    for network, word in _NOT_PUBLIC:
        if found in network:
            return word
    if isinstance(found, IPv6Address) and found not in _PUBLIC_V6:
        return "reserved"
    return None


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def read_url(url: str, allow_http: bool, allowed: Sequence[Network]) -> URL:
    """
    Read an address that says plainly where it leads. Raises ConfigError, which shows no more of it than the host.

    What this returns is given to the client as it is: two readers of one text could understand two hosts.
    """
    if not isinstance(url, str) or any(sign <= " " or sign in "\\\x7f" for sign in url):
        raise ConfigError([f"url: it holds a blank, a backslash or a sign nobody sees; {_LIKE}"])
    try:
        read = URL(url)
        host = read.raw_host or ""
        port = read.port
    except ValueError:
        raise ConfigError([f"url: it is no address; {_LIKE}"]) from None
    if read.scheme not in ("http", "https") or not host:
        raise ConfigError([f"url: it is no address of the web; {_LIKE}"])
    faults = []
    if read.scheme == "http" and not allow_http:
        faults.append("url: it begins with http:, which anybody on the way can read; right would be https:, "
                      "or allow_http=true for a receiver nearby")  # fmt: skip
    if "@" in read.raw_authority:
        faults.append("url: a user or password stands in it; right would be token= or headers=")
    if port == 0:
        faults.append(f"url: there is no port 0; {_LIKE}")
    fault = _host_fault(host, allowed)
    if fault is not None:
        faults.append(f"url: {fault}")
    if faults:
        raise ConfigError(faults)
    return read


def _host_fault(host: str, allowed: Sequence[Network]) -> str | None:
    if ":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            address = str(ipaddress.ip_address(host))
        except ValueError:
            return f"a number that is not written as addresses are; {_LIKE}"
        word = forbidden(address, allowed)
        if "%" in host:
            return "an address with a zone; right would be one without"
        if word is not None:
            width = 128 if ":" in address else 32
            return f"{address} is {word}; right would be a public address, or allow_networks=['{address}/{width}']"
        return None
    if host.endswith("."):
        return "a dot ends the name; right would be the name without it"
    if len(host) > 253 or not _NAME.fullmatch(host):
        return f"the name of the host holds what no name does; {_LIKE}"
    return None
