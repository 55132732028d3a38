"""How revocations travel: in frames of bounded size, each author's chain once."""

from __future__ import annotations

import pytest
from revocation_cases import JUNIOR, NOW, ROOT_KEY, SENIOR, durable, read, signed

from meshpeer.core.antientropy.messages import Revoked
from meshpeer.core.antientropy.telling import read_told, told_in_frames
from meshpeer.core.errors import PeerFault
from meshpeer.core.node.codec import CODEC
from meshpeer.core.records.revocation import REASON_LENGTH_MAX
from meshpeer.core.wire.limits import FRAME_BYTES_MAX


def test_what_is_told_is_what_is_read_whoever_signed_it() -> None:
    said = [
        read(signed(ROOT_KEY, "node", JUNIOR.public), ()),
        read(signed(SENIOR, "node", JUNIOR.public), durable(SENIOR)),
        read(signed(SENIOR, "invite", bytes(8)), durable(SENIOR)),
        read(signed(JUNIOR, "invite", bytes(8)), durable(JUNIOR)),
    ]
    (frame,) = told_in_frames(said, last=True)
    assert len(frame.chains) == 2
    assert frame.last
    sent = CODEC.decode(CODEC.encode(frame))
    assert isinstance(sent, Revoked)
    assert read_told(sent) == [(one.envelope, one.chain) for one in said]


def test_a_large_set_takes_frames_of_bounded_size_and_only_the_last_says_so() -> None:
    said = [
        read(
            signed(SENIOR, "node", number.to_bytes(32), at=NOW, reason="x" * REASON_LENGTH_MAX),
            durable(SENIOR),
        )
        for number in range(1, 401)
    ]
    frames = list(told_in_frames(said, last=True))
    assert len(frames) > 2
    assert [frame.last for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert all(len(CODEC.encode(frame)) <= FRAME_BYTES_MAX for frame in frames)
    assert [one for frame in frames for one in read_told(frame)] == [
        (one.envelope, one.chain) for one in said
    ]


def test_who_holds_nothing_says_so_only_where_that_is_all_it_holds() -> None:
    assert list(told_in_frames((), last=True)) == [Revoked(last=True)]
    assert list(told_in_frames((), last=False)) == []


@pytest.mark.parametrize("place", [-1, 2])
def test_a_revocation_whose_certificate_is_not_there_is_refused(place: int) -> None:
    with pytest.raises(PeerFault, match="without its author's certificate"):
        read_told(Revoked(chains=(durable(SENIOR),), said=((place, b""),)))
