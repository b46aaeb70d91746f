"""
Signatures of the Standard Webhooks specification (https://www.standardwebhooks.com). Pure.

What is signed is `id.timestamp.body`, the very bytes that are sent, by HMAC-SHA256 with each secret. A signature is
fresh for every attempt; the id stays, so that a receiver knows what it has seen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence

from backend_watcher.errors import ConfigError

PREFIX = "whsec_"
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
SECRETS_MAX = 5
"""During a rotation there are two; every one of them costs a signature a request."""

_RIGHT = f"right would be {PREFIX!r} and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes"
_UNSAFE = re.compile(r"[^A-Za-z0-9_:]")


def message_id(event_id: str) -> str:
    """
    Write an event id as a header may hold it, different for different ones, and without the dot that separates.

    `7000000000000000001:shop:0/16B3748:3` becomes `7000000000000000001:shop:0-16B3748:3`.
    """
    return _UNSAFE.sub(_replaced, event_id)


def _replaced(found: re.Match[str]) -> str:
    if found[0] == "/":
        return "-"
    return "".join(f"~{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


class Signer:
    """
    Signs with one secret or, during a rotation, with several; the newest stands first.

    One text may hold several with blanks between them, as a variable of the environment does. Raises ConfigError for
    what is no secret, and never shows it.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: str | Sequence[str]) -> None:
        texts = secrets.split() if isinstance(secrets, str) else list(secrets)
        faults = []
        keys: list[bytes] = []
        if not 1 <= len(texts) <= SECRETS_MAX:
            faults.append(f"secret: there are {len(texts)}; right would be 1, or up to {SECRETS_MAX} during a rotation")
        for number, text in enumerate(texts[:SECRETS_MAX], 1):
            key = _key(text)
            if isinstance(key, bytes):
                keys.append(key)
            else:
                which = "secret" if len(texts) == 1 else f"secret: number {number}"
                faults.append(f"{which}: {key}; {_RIGHT}")
        if len(set(keys)) < len(keys):
            faults.append("secret: the same one stands there twice; right would be each once")
        if faults:
            raise ConfigError(faults)
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"Signer({len(self)} secrets)"

    def headers(self, identity: str, seconds: int, body: bytes) -> dict[str, str]:
        """Return the three headers of one attempt, made at `seconds` since 1970."""
        signed = f"{identity}.{seconds}.".encode() + body
        signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys]
        return {
            "webhook-id": identity,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }


def _key(text: object) -> bytes | str:
    """Return the key that a secret stands for, or what is wrong with it."""
    if not isinstance(text, str) or not text.startswith(PREFIX):
        return f"it does not begin with {PREFIX!r}"
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return "what follows the prefix is not base64"
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        return f"it has {len(key)} bytes"
    return key
