"""An address is public, or allowed by name, or refused; and a URL says plainly where it leads."""

from __future__ import annotations

import ipaddress

import pytest

from backend_watcher.errors import ConfigError
from backend_watcher.sinks.webhook_address import forbidden, read_networks, read_url

NOT_PUBLIC = {
    "this host": ["0.0.0.0", "0.255.255.255", "::"],
    "private": [
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "fc00::1",
        "fd00:ec2::254",
    ],
    "shared by a provider": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1", "::ffff:169.254.169.254"],
    "a cloud's own service": ["168.63.129.16"],
    "for documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "for benchmarks": ["198.18.0.1", "198.19.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "a tunnel (6to4)": ["2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1"],
    "reserved": [
        *("192.0.0.192", "192.88.99.1", "240.0.0.1", "255.255.255.255", "::127.0.0.1", "::2", "fec0::1", "100::1"),
        *("64:ff9b:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "5f00::1", "4000::1"),
    ],
    "not an address": ["localhost", "", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.5"],
}
PUBLIC = ["8.8.8.8", "1.1.1.1", "11.0.0.0", "172.32.0.1", "192.169.0.1", "100.128.0.1", "223.255.255.255"]
PUBLIC += ["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize(("address", "word"), [(one, word) for word, many in NOT_PUBLIC.items() for one in many])
def test_what_is_not_public_is_forbidden(address: str, word: str) -> None:
    assert forbidden(address, ()) == word


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_not(address: str) -> None:
    assert forbidden(address, ()) is None


def test_it_is_never_laxer_than_the_library() -> None:
    lax = []
    for first in range(256):
        for second in (0, 1, 64, 168, 254):
            address = f"{first}.{second}.1.1"
            found = ipaddress.ip_address(address)
            if (not found.is_global or found.is_multicast) and forbidden(address, ()) is None:
                lax.append(address)
    assert lax == []


def test_a_network_is_allowed_by_name_and_no_other() -> None:
    allowed = read_networks(["10.1.0.0/16", "fd00::/8", "127.0.0.1"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "127.0.0.1"):
        assert forbidden(address, allowed) is None
    for address in ("10.2.0.1", "127.0.0.2", "fc00::1", "::1", "169.254.169.254"):
        assert forbidden(address, allowed)


@pytest.mark.parametrize("networks", ["10.0.0.0/8", ["10.0.0.1/8"], ["0.0.0.0/0"], ["::/0"], ["localhost"], [None]])
def test_what_is_no_network_is_refused(networks: object) -> None:
    with pytest.raises(ConfigError, match=r"^allow_networks: .*right would be"):
        read_networks(networks)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hooks?for=shop",
        "https://example.com:8443/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:8443/x",
        "https://bücher.example/",
        "https://a_b.example-1.com",
        "https://receiver/",
    ],
)
def test_a_plain_address_is_taken(url: str) -> None:
    assert read_url(url, False, ()).scheme == "https"


REFUSED = {
    "begins with http:": ["http://example.com/"],
    "is no address of the web": ["", "example.com", "ftp://example.com/", "https:example.com", "https:///x", "/x",
                                 "file:///etc/passwd", "javascript:1", "unix:/run/x"],
    "is no address": ["https://[::1", "https://a:99999/", "https://a:b/"],
    "a blank, a backslash": ["https://example.com /", "https://exa\tmple.com/", "https://example.com/\r\nHost: x",
                             "https://127.0.0.1\\@example.com/", " https://example.com/", "https://a\x7fb/", None],
    "a user or password": ["https://hunter2@example.com/", "https://a:hunter2@example.com/", "https://:@example.com/",
                           "https://example.com:hunter2@169.254.169.254/"],
    "no port 0": ["https://example.com:0/"],
    "is loopback": ["https://127.0.0.1/", "https://127.8.9.10/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
                    "https://１２７.０.０.１/", "https://①②⑦.0.0.1/", "https://127。0。0。1/",
                    "https://[0:0:0:0:0:ffff:7f00:1]/", "https://[64:ff9b::127.0.0.1]/"],
    "is this host": ["https://0.0.0.0/", "https://[::]/"],
    "is link-local": ["https://169.254.169.254/latest/meta-data", "https://[fe80::1]/"],
    "is private": ["https://10.0.0.1/", "https://[fd00:ec2::254]/", "https://192.168.0.1:443/"],
    "a tunnel": ["https://[2002:7f00:1::]/"],
    "written as addresses are": ["https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/",
                                 "https://017700000001/", "https://0177.0.0.1/", "https://127.0.0.1./", "https://1/",
                                 "https://foo.0x/", "https://127.0.0.0x1/", "https://10.0.0.1.1/"],
    "a dot ends the name": ["https://localhost./", "https://example.com./"],
    "what no name does": ["https://127.0.0.1%00.example.com/", "https://a%2eb/", "https://-a.example/", "https://a..b/",
                          "https://" + "a" * 64 + ".example/", "https://" + "a." * 130 + "example/"],
    "a zone": ["https://[fe80::1%25eth0]/"],
}  # fmt: skip


@pytest.mark.parametrize(("url", "says"), [(url, says) for says, urls in REFUSED.items() for url in urls])
def test_any_other_is_refused_and_not_shown(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_url(url, False, ())
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert all(fault.startswith("url: ") and "right would be" in fault for fault in caught.value.faults)


def test_every_fault_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_url("http://hunter2@127.0.0.1:0/", False, ())
    assert len(caught.value.faults) == 4


def test_what_is_allowed_is_taken() -> None:
    assert read_url("http://127.0.0.1:8080/x", True, read_networks(["127.0.0.1/32"])).port == 8080
    with pytest.raises(ConfigError, match=r"allow_networks=\['127.0.0.2/32'\]"):
        read_url("http://127.0.0.2/", True, read_networks(["127.0.0.1/32"]))
