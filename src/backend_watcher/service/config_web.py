"""Where the watcher answers over HTTP, as people write it: `127.0.0.1:8470`, `[::1]:8470`, `localhost:0`. Pure."""

from __future__ import annotations

from ipaddress import ip_address

from backend_watcher.service.config import WebConfig

PORT_MAX = 65_535
RIGHT = "right would be 127.0.0.1:8470"


def parse_listen(text: str) -> WebConfig:
    """Return host and port. Raises ValueError, in words about the text, for what is none or not of this machine."""
    host, colon, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not bare or not port.isdecimal() or int(port) > PORT_MAX or (":" in bare and bare == host):
        raise ValueError(f"{text!r} is no address with a port; {RIGHT}")
    if not _is_of_this_machine(bare):
        raise ValueError(f"{text!r} can be reached by others, and nobody is asked who they are; {RIGHT}")
    return WebConfig(bare, int(port))


def _is_of_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
