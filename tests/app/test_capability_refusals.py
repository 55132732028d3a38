"""An agent signs nothing that its node's certificate does not allow, whoever sits at it: exit code 4."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from meshpeer.app.agent import Agent
from meshpeer.app.api_charter import CharterAnswers
from meshpeer.app.api_revoke import RevokeAnswers
from meshpeer.core.errors import Refused
from meshpeer.core.identity.constraints import INVITE_DEFAULT
from meshpeer.core.ids import NodeId
from meshpeer.core.records.kinds import CharterRecord
from meshpeer.runtime.control import CharterChange, RevocationRequest

ME = NodeId(bytes(32))
CHARTER = CharterRecord(version=1, issued_at=1, author=ME, mesh_name="home", subnet="10.10.0.0/24")


def test_a_node_without_admin_signs_no_revocation() -> None:
    answers = RevokeAnswers()
    answers._agent = agent()
    with pytest.raises(Refused, match="does not allow `admin`") as refused:
        answers._author(RevocationRequest(target="bravo"))
    assert refused.value.exit_code == 4


async def test_a_node_without_admin_signs_no_charter() -> None:
    answers = CharterAnswers()
    answers._agent = agent()
    with pytest.raises(Refused, match="does not allow `admin`") as refused:
        await answers.change_charter(CharterChange(topology="full"))
    assert refused.value.exit_code == 4


def agent() -> Agent:
    """An agent whose node may do what an invite gives, and no more."""
    best = SimpleNamespace(identity=SimpleNamespace(capabilities=INVITE_DEFAULT, durable=True), chain=())
    ledger = SimpleNamespace(
        mesh=bytes(16),
        charter=CHARTER,
        get=lambda _: SimpleNamespace(best=best),
        may=lambda _, capability: capability in INVITE_DEFAULT,
    )
    return cast(Agent, SimpleNamespace(node=SimpleNamespace(me=ME, ledger=ledger)))
