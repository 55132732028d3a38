"""The contract of the port ``Relaying``: what the process and its twin in memory do alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from relay_packets_kit import data, initiation, response
from relay_rigs import Box, Rig, memory_rig, process_rig

from meshpeer.core.errors import EnvironmentFault
from meshpeer.core.ids import WireGuardKey
from meshpeer.core.paths.relay_binding import Binding, BindingKind, write_binding
from meshpeer.core.paths.relay_crossing import Drop
from meshpeer.runtime.ports import RelayedPair

KEYS = (WireGuardKey(b"a" * 32), WireGuardKey(b"b" * 32))
SECRETS = (b"s" * 32, b"t" * 32)
A_INDEX, B_INDEX = 0xA1, 0xB1


@pytest.fixture(params=["memory", "127.0.0.1", "::1"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with memory_rig() if request.param == "memory" else process_rig(request.param) as made:
        yield made


async def test_ciphertext_crosses_both_ways_between_the_two_ports(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    first, second = rig.ports
    for size in (32, 1452, 1472, 8992):
        await alpha.send(first, data(B_INDEX, size))
        assert await bravo.receive() == (second, data(B_INDEX, size))
        await bravo.send(second, data(A_INDEX, size))
        assert await alpha.receive() == (first, data(A_INDEX, size))


async def test_many_packets_cross_in_order(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    for burst in range(10):
        # As many at once as a socket has room for.
        sent = [data(B_INDEX, 32 + 16 * (burst + number)) for number in range(20)]
        for packet in sent:
            await alpha.send(rig.ports[0], packet)
        assert [(await bravo.receive())[1] for _ in sent] == sent


async def test_what_crossed_is_counted_and_where_ends_are_is_shown(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    await alpha.send(rig.ports[0], data(B_INDEX, 64))
    await bravo.receive()
    (pair,) = await rig.relay.look()
    assert (pair.ports, pair.frozen, pair.fast) == (rig.ports, False, False)
    assert pair.packets == (2, 2)
    assert pair.bytes == (148 + 64, 148 + 92)
    assert [way[:2] for way in pair.ways if way] == [alpha.address, bravo.address]


async def test_strangers_neither_cross_nor_move_an_end(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    stranger = rig.make_box()
    for packet in (data(A_INDEX), data(666), b"", b"hello", initiation(1, KEYS[0]), data(B_INDEX)[:-1]):
        await stranger.send(rig.ports[0], packet)
    for packet in (response(2, A_INDEX, KEYS[0]), data(B_INDEX)):
        await stranger.send(rig.ports[1], packet)
    pair = await dropped(rig, 9)
    assert pair.drops == {Drop.NOWHERE: 1, Drop.INDEX: 4, Drop.MALFORMED: 3, Drop.MAC: 1}
    assert [way[:2] for way in pair.ways if way] == [alpha.address, bravo.address]


async def test_an_end_that_roams_is_followed(rig: Rig) -> None:
    _, bravo = await shake_hands(rig)
    elsewhere = rig.make_box()
    await elsewhere.send(rig.ports[0], data(B_INDEX))
    await bravo.receive()
    await bravo.send(rig.ports[1], data(A_INDEX))
    assert await elsewhere.receive() == (rig.ports[0], data(A_INDEX))


async def test_an_end_that_changes_its_key_is_let_through_under_both(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    later = WireGuardKey(b"c" * 32)
    await rig.relay.rekey(rig.ports, ((KEYS[0], later), (KEYS[1],)))
    for number, key in enumerate((KEYS[0], later)):
        await bravo.send(rig.ports[1], initiation(50 + number, key))
        assert await alpha.receive() == (rig.ports[0], initiation(50 + number, key))
    await rig.relay.rekey(rig.ports, ((later,), (KEYS[1],)))
    await bravo.send(rig.ports[1], initiation(60, KEYS[0]))
    pair = await dropped(rig, 2)
    assert pair.drops == {Drop.NOWHERE: 1, Drop.MAC: 1}
    with pytest.raises(EnvironmentFault):
        await rig.relay.rekey((1, 2), ((later,), (KEYS[1],)))


async def test_ends_that_are_bound_need_no_handshake(rig: Rig) -> None:
    alpha, bravo, stranger = rig.make_box(), rig.make_box(), rig.make_box()
    await rig.relay.open(rig.ports, KEYS, SECRETS)
    for side, box in enumerate((alpha, bravo)):
        await box.send(rig.ports[side], binding(BindingKind.QUESTION, side))
        assert await box.receive() == (rig.ports[side], binding(BindingKind.ANSWER, side))
    await alpha.send(rig.ports[0], data(0x1234, 1452))
    assert await bravo.receive() == (rig.ports[1], data(0x1234, 1452))
    await bravo.send(rig.ports[1], data(0x4321))
    assert await alpha.receive() == (rig.ports[0], data(0x4321))
    # What was overheard, and what was made without the secret.
    await stranger.send(rig.ports[0], binding(BindingKind.QUESTION, 0))
    await stranger.send(rig.ports[0], binding(BindingKind.QUESTION, 1))
    pair = await dropped(rig, 2)
    assert pair.drops == {Drop.REPLAY: 1, Drop.MAC: 1}
    assert [way[:2] for way in pair.ways if way] == [alpha.address, bravo.address]


async def test_ports_that_were_lent_without_secrets_bind_nobody(rig: Rig) -> None:
    alpha = rig.make_box()
    await rig.relay.open(rig.ports, KEYS)
    await alpha.send(rig.ports[0], binding(BindingKind.QUESTION, 0))
    assert (await dropped(rig, 1)).ways == (None, None)


async def test_a_frozen_pair_carries_nothing_until_it_is_woken(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    await rig.relay.freeze(rig.ports, rig.clock())
    await alpha.send(rig.ports[0], data(B_INDEX, 48))
    pair = await dropped(rig, 2)
    assert pair.frozen
    assert pair.drops == {Drop.NOWHERE: 1, Drop.FROZEN: 1}
    await rig.relay.wake(rig.ports)
    await alpha.send(rig.ports[0], data(B_INDEX, 64))
    assert await bravo.receive() == (rig.ports[1], data(B_INDEX, 64))


async def test_a_freeze_to_come_lets_everything_cross_until_then(rig: Rig) -> None:
    alpha, bravo = await shake_hands(rig)
    await rig.relay.freeze(rig.ports, rig.clock() + 3_600)
    await alpha.send(rig.ports[0], data(B_INDEX))
    await bravo.receive()
    assert not (await rig.relay.look())[0].frozen


async def test_ports_taken_back_carry_nothing_and_can_be_lent_again(rig: Rig) -> None:
    alpha, _ = await shake_hands(rig)
    await rig.relay.close(rig.ports)
    assert await rig.relay.look() == []
    await rig.relay.open(rig.ports, KEYS)
    await alpha.send(rig.ports[0], data(B_INDEX))
    assert (await dropped(rig, 1)).drops == {Drop.INDEX: 1}, "nothing is known of before"


async def test_a_port_that_is_taken_opens_neither(rig: Rig) -> None:
    await rig.relay.open(rig.ports, KEYS)
    first, second = rig.ports
    other = second + 1 if second + 1 not in rig.ports else second + 2
    with pytest.raises(EnvironmentFault, match=f"UDP port {first}"):
        await rig.relay.open((other, first), KEYS)
    await rig.relay.close(rig.ports)
    await rig.relay.open((other, first), KEYS)
    assert [pair.ports for pair in await rig.relay.look()] == [(other, first)]


async def test_only_open_ports_freeze_and_wake_and_closing_others_is_no_error(rig: Rig) -> None:
    await rig.relay.close(rig.ports)
    with pytest.raises(EnvironmentFault, match="no such ports"):
        await rig.relay.freeze(rig.ports, 0.0)
    with pytest.raises(EnvironmentFault, match="no such ports"):
        await rig.relay.wake(rig.ports)


def binding(kind: BindingKind, side: int) -> bytes:
    return write_binding(Binding(kind, 7), SECRETS[side])


async def shake_hands(rig: Rig) -> tuple[Box, Box]:
    """Opens the rig's ports; returns two ends that have shaken hands over them."""
    alpha, bravo = rig.make_box(), rig.make_box()
    await rig.relay.open(rig.ports, KEYS)
    first, second = rig.ports
    await bravo.send(second, initiation(1, KEYS[0]))
    await dropped(rig, 1)
    await alpha.send(first, initiation(A_INDEX, KEYS[1]))
    assert await bravo.receive() == (second, initiation(A_INDEX, KEYS[1]))
    await bravo.send(second, response(B_INDEX, A_INDEX, KEYS[0]))
    assert await alpha.receive() == (first, response(B_INDEX, A_INDEX, KEYS[0]))
    # So that what is counted on each side differs from nothing.
    await bravo.send(second, initiation(2, KEYS[0]))
    assert (await alpha.receive())[1] == initiation(2, KEYS[0])
    return alpha, bravo


async def dropped(rig: Rig, count: int) -> RelayedPair:
    """Returns the one pair once so many packets in all did not cross."""
    with trio.fail_after(10):
        while True:
            (pair,) = await rig.relay.look()
            if sum(pair.drops.values()) >= count:
                return pair
