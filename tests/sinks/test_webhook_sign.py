"""Signatures, judged by the package that the specification's authors publish."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook as Judge
from standardwebhooks import WebhookVerificationError

from backend_watcher.errors import ConfigError
from backend_watcher.sinks.webhook_sign import Signer, message_id

NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = '{"type":"products.update","data":{"name":"Süß"}}'.encode()
ID = "7000000000000000001:shop:0-16B3748:3"


def signed(secrets: object, age_seconds: int = 0) -> dict[str, str]:
    return Signer(secrets).headers(ID, int(time.time()) - age_seconds, BODY)


def test_a_signature_is_valid() -> None:
    assert Judge(NEW).verify(BODY, signed(NEW))["type"] == "products.update"


@pytest.mark.parametrize("secrets", [[NEW, OLD], [OLD, NEW], f"{NEW} {OLD}", f" {OLD}\n{NEW}\n"])
def test_each_of_several_secrets_verifies(secrets: object) -> None:
    headers = signed(secrets)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (NEW, OLD):
        Judge(secret).verify(BODY, headers)


def test_a_tampered_body_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        Judge(NEW).verify(BODY.replace(b"update", b"delete"), signed(NEW))


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_a_tampered_header_is_refused(header: str) -> None:
    headers = signed(NEW)
    headers[header] = headers[header][:-1] + ("0" if headers[header][-1] != "0" else "1")
    with pytest.raises(WebhookVerificationError):
        Judge(NEW).verify(BODY, headers)


def test_a_wrong_secret_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        Judge(OTHER).verify(BODY, signed([NEW, OLD]))


def test_an_old_signature_is_refused() -> None:
    Judge(NEW).verify(BODY, signed(NEW, age_seconds=290))
    with pytest.raises(WebhookVerificationError, match="old"):
        Judge(NEW).verify(BODY, signed(NEW, age_seconds=310))


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(header: str) -> None:
    headers = signed(NEW)
    del headers[header]
    with pytest.raises(WebhookVerificationError):
        Judge(NEW).verify(BODY, headers)


def test_it_signs_as_the_package_does() -> None:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(1_700_000_000, UTC)
    ours = Signer(NEW).headers(ID, 1_700_000_000, BODY)
    assert ours["webhook-signature"] == Judge(NEW).sign(ID, moment, BODY.decode())


@pytest.mark.parametrize("size", [24, 64])
def test_the_smallest_and_the_largest_secret(size: int) -> None:
    Signer("whsec_" + base64.b64encode(b"k" * size).decode())


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        ("", "there are 0"),
        ([], "there are 0"),
        ("hunter2-hunter2-hunter2", "does not begin with 'whsec_'"),
        ("env:NOT_RESOLVED", "does not begin with 'whsec_'"),
        ("whsec_hunter2!", "not base64"),
        ("whsec_" + base64.b64encode(b"k" * 23).decode(), "23 bytes"),
        ("whsec_" + base64.b64encode(b"k" * 65).decode(), "65 bytes"),
        ([NEW, "hunter2"], "number 2"),
        ([NEW, NEW], "twice"),
        ([NEW] * 6, "up to 5"),
        ([NEW, 5], "number 2"),
        ([NEW, "whsec_ü"], "not base64"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(secrets: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Signer(secrets)
    assert says in str(caught.value)
    assert all(fault.startswith("secret: ") and "right would be" in fault for fault in caught.value.faults)
    assert "hunter2" not in str(caught.value)


def test_it_does_not_show_its_secrets() -> None:
    signer = Signer([NEW, OLD])
    assert repr(signer) == "Signer(2 secrets)"
    assert len(signer) == 2


def test_an_event_id_becomes_safe_for_a_header() -> None:
    assert message_id("7000000000000000001:shop:0/16B3748:3") == ID
    hostile = ["a.b", "a-b", "a/b", "a~2Eb", "a b", "a\r\nb: c", "ä", "a:b", "", "a\x00b", "\ud800"]
    written = [message_id(text) for text in hostile]
    assert len(set(written)) == len(hostile)
    for text in written:
        assert text.isascii()
        assert not set(text) & set(". \r\n\x00")
