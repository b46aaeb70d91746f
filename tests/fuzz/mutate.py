"""Ways to break bytes, each from a seeded generator, so that a failure can be had again."""

from __future__ import annotations

from random import Random

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flip(random: Random, data: bytes) -> bytes:
    """Flip up to four bits."""
    broken = bytearray(data)
    for _ in range(random.randint(1, 4)):
        broken[random.randrange(len(broken))] ^= 1 << random.randrange(8)
    return bytes(broken)


def cut(random: Random, data: bytes) -> bytes:
    """Lose the end."""
    return data[: random.randrange(len(data))]


def stretch(random: Random, data: bytes) -> bytes:
    """Gain bytes at the end or anywhere."""
    at = random.choice([len(data), random.randint(0, len(data))])
    return data[:at] + random.randbytes(random.choice([1, 2, 4, 25])) + data[at:]


def lie(random: Random, data: bytes) -> bytes:
    """Write an edge of the integers, or one near what was there, over something that may be a length."""
    size = random.choice([1, 2, 4])
    at = random.randint(0, max(0, len(data) - size))
    there = int.from_bytes(data[at : at + size], "big")
    value = random.choice([*EDGES, there + 1, there - 1, there + 5]) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, "big") + data[at + size :]


def lose(random: Random, data: bytes) -> bytes:
    """Lose a piece from the middle."""
    at = random.randrange(len(data))
    return data[:at] + data[at + random.choice([1, 2, 4, 8]) :]


def repeat(random: Random, data: bytes) -> bytes:
    """Say a piece twice."""
    at = random.randrange(len(data))
    return data[:at] + data[at : at + random.choice([1, 5, 20])] + data[at:]


BREAKS = (flip, flip, cut, stretch, lie, lie, lie, lose, repeat)


def broken(random: Random, data: bytes) -> bytes:
    """Break bytes in one way, and now and then in two."""
    for _ in range(random.choice([1, 1, 1, 2])):
        if data:
            data = random.choice(BREAKS)(random, data)
    return data


def shuffled(random: Random, messages: list[bytes]) -> list[bytes]:
    """Lose, repeat, swap or splice whole messages, or break one of them."""
    result = list(messages)
    at, other = random.randrange(len(result)), random.randrange(len(result))
    match random.randrange(7):
        case 0:
            del result[at]
        case 1:
            result.insert(other, result[at])
        case 2:
            result[at], result[other] = result[other], result[at]
        case 3:
            one, two = result[at], result[other]
            result[at] = one[: random.randint(0, len(one))] + two[random.randint(0, len(two)) :]
        case _:
            result[at] = broken(random, result[at])
    return result
