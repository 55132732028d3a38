"""A node takes another name, and keeps it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from agents import founded_folder, running, settings_of, until

from meshpeer.app.config import Settings
from meshpeer.app.state import NODE_FILE, load_state
from meshpeer.core.errors import EnvironmentFault, LocalFault


async def test_a_new_name_is_published_and_outlasts_a_restart(settings: Settings) -> None:
    async with running(settings) as agent:
        made = await agent.api.rename("render-3")
        assert (made.before, made.name) == ("alone", "render-3")
        await until(lambda: agent.node.roster.members[0].name == "render-3")
        assert (await agent.api.status()).node.name == "render-3"
    async with running(settings) as agent:
        assert (await agent.api.status()).node.name == "render-3"


async def test_what_is_no_name_or_can_not_be_kept_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with running(settings) as agent:
        with pytest.raises(LocalFault):
            await agent.api.rename("Render 3")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(EnvironmentFault) as caught:
                await agent.api.rename("render-3")
        assert str(settings.state_dir / NODE_FILE) in caught.value.what
        assert (await agent.api.status()).node.name == "alone"
    assert load_state(settings.state_dir).node.name == "alone"


@pytest.fixture
def settings() -> Iterator[Settings]:
    with founded_folder() as folder:
        yield settings_of(folder)
