"""The error tree: drawn as it is, and every class with its remedy and its retry kind."""

from __future__ import annotations

import inspect
import re

import pytest

from backend_watcher import errors
from backend_watcher.errors import ExitCode, RetryKind, WatcherError

LINE = re.compile(
    r"    (?P<bars>(?:[│ ]   )*(?:[├└]── )?)(?P<name>\w+)"
    r"(?:\s+(?P<kind>later|park|person|skip|stop)\s+(?P<text>\S.*))?$"
)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Read the docstring: each name with its parent and retry kind."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        depth = len(match["bars"]) // 4
        del path[depth:]
        tree[match["name"]] = (path[-1] if path else None, match["kind"])
        path.append(match["name"])
    return tree


CLASSES = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, WatcherError) and item.__module__ == errors.__name__
}
LEAVES = [item for item in CLASSES.values() if not item.__subclasses__()]


def make(kind: type[WatcherError]) -> WatcherError:
    if issubclass(kind, errors.PartlyWritten):
        return kind(2, KeyError("colour"))
    if issubclass(kind, errors.SomeFailed):
        return kind({2: KeyError("colour")})
    if issubclass(kind, errors.Retry):
        return kind(1.5)
    if issubclass(kind, errors.ConfigError | errors.PreflightFailed):
        return kind(["one", "two"])
    return kind("what happened")


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {name: item.__mro__[1].__name__ if item is not WatcherError else None for name, item in CLASSES.items()}
    assert {name: parent for name, (parent, _) in drawn().items()} == real


def test_the_drawn_retry_kinds_are_the_real_ones() -> None:
    kinds = {name: kind for name, (_, kind) in drawn().items() if kind is not None}
    assert kinds == {item.__name__: item.retry.value for item in LEAVES}


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES.keys())
def test_each_says_what_happened_what_to_do_and_how_it_ends(kind: type[WatcherError]) -> None:
    error = make(kind)
    assert error.message == str(error) != ""
    assert error.remedy.endswith((".", "`"))
    assert isinstance(error.retry, RetryKind)
    assert error.exit_code in vars(ExitCode).values()
    assert (kind.__doc__ or "").strip().endswith(".")


OWN_WORDS = {errors.ProtocolError, errors.PartlyWritten, errors.SomeFailed, errors.Retry, errors.Skip}


@pytest.mark.parametrize("kind", [k for k in LEAVES if k not in OWN_WORDS])
def test_a_remedy_may_be_more_precise_than_its_class(kind: type[WatcherError]) -> None:
    what = ["what"] if issubclass(kind, errors.ConfigError | errors.PreflightFailed) else "what"
    error = kind(what, remedy="Do this.")  # type: ignore[arg-type]
    assert error.remedy == "Do this."
    assert kind.remedy != "Do this."


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.PreflightFailed, 3),
        (errors.SourceRefused, 3),
        (errors.SourceUnavailable, 75),
        (errors.ProtocolError, 4),
        (errors.SlotLost, 4),
        (errors.JournalBroken, 4),
        (errors.JournalLocked, 75),
        (errors.OutOfOrder, 4),
    ],
)
def test_exit_codes(kind: type[WatcherError], code: int) -> None:
    assert kind.exit_code == code


def test_every_safety_stop_stops_with_the_same_code() -> None:
    for kind in errors.SafetyStop.__subclasses__():
        assert (kind.retry, kind.exit_code) == (RetryKind.STOP, ExitCode.DATA_SAFETY)


def test_several_faults_are_one_line_each() -> None:
    assert str(errors.ConfigError(["one", "two"])) == "one\ntwo"
    assert errors.PreflightFailed(["one", "two"]).faults == ["one", "two"]


def test_a_protocol_error_says_where() -> None:
    error = errors.ProtocolError("too short", offset=7, message_type="I")
    assert str(error) == "too short (message type 'I', offset 7)"


def test_a_partly_written_batch_says_how_far_and_why() -> None:
    cause = KeyError("colour")
    error = errors.PartlyWritten(2, cause)
    assert str(error) == "after 2 changes: KeyError: 'colour'"
    assert (error.settled, error.cause) == (2, cause)


@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError(), "KeyError"), (errors.HandlerError("bug"), "HandlerError: bug"), (OSError("a\nb"), "OSError: a b")],
)
def test_an_error_is_one_line_of_bounded_length(error: Exception, text: str) -> None:
    assert errors.in_one_line(error) == text
    assert len(errors.in_one_line(OSError("x" * 9999))) == errors.ERROR_CHARACTERS_MAX
