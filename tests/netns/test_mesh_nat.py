"""The first hour behind routers: a founder at home works where its router helps, else says what to do."""

from __future__ import annotations

from collections.abc import Iterator

import meshkit
import pytest
from meshlab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

ENVIRONMENT = 5


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with meshkit.shown_lab(request, meshkit.SHIPPED_LABS / "nat-founder.toml") as lab:
        yield lab


@pytest.fixture(scope="module")
def invite(lab: Lab) -> str:
    """An invite to the mesh that "open" founded, with the address of the router that lets it through."""
    meshkit.found(lab.node("open"), "--endpoint", lab.node("r2").address("net"))
    return meshkit.invite(lab.node("open"), "--uses", "3")


def test_a_founder_behind_a_closed_router_says_what_to_do(lab: Lab) -> None:
    closed = lab.node("closed")
    said = meshkit.found(closed)
    (advice,) = [line for line in said.splitlines() if "--endpoint HOST" in line]
    assert "TCP 51821 and UDP 51820" in advice
    made = closed.run(["meshpeer", "invite"])
    (warning,) = [line for line in made.stderr.splitlines() if line.startswith("warning: ")]
    assert "the seeds are addresses of a local network" in warning
    assert "--endpoint HOST" in warning
    assert "TCP 51821 and UDP 51820" in warning
    public = lab.node("public")
    before = meshkit.footprint(public)
    failure = meshkit.fails(public, ENVIRONMENT, "join", made.stdout.strip(), "--detach")
    assert failure.what.startswith(f"{closed.address()}:51821 ")
    assert "--endpoint HOST" in failure.hint
    assert "TCP 51821 and UDP 51820" in failure.hint
    assert meshkit.footprint(public) == before
    meshkit.meshpeer(closed, "leave", "--force")
    meshkit.until(lambda: not closed.pgrep("."), "closed has left its mesh")


def test_members_reach_a_founder_behind_a_router_that_lets_it_through(lab: Lab, invite: str) -> None:
    for name in ("public", "guest"):
        meshkit.join(lab.node(name), invite)
        lab.node(name).run(["ping", "-c1", "-W2", "open.mesh"])
        meshkit.until(meshkit.sees_alive(lab.node("open"), *sorted({"public", name})), f"open reaches {name}")
        lab.node("open").run(["ping", "-c1", "-W2", f"{name}.mesh"])
    assert meshkit.peers(lab.node("public"))["open"].endpoint == f"{lab.node('r2').address('net')}:51820"
    assert meshkit.peers(lab.node("open"))["guest"].endpoint.startswith(f"{lab.node('r3').address('net')}:")
    # Only one of the two has to be reachable: guest's packets open the way back.
    # Where the first packet is late they ask the only relay there is, and its router lets nothing to it.
    meshkit.until(lambda: meshkit.pings(lab.node("guest"), "public.mesh"), "guest reaches public")
    lab.node("public").run(["ping", "-c1", "-W2", "guest.mesh"])


@pytest.mark.usefixtures("invite")
def test_an_invite_names_the_configured_endpoint_first_and_warns_of_nothing(lab: Lab) -> None:
    made = lab.node("open").run(["meshpeer", "invite"])
    assert "warning" not in made.stderr
    assert f"Seeds: {lab.node('r2').address('net')}:51821" in made.stderr


def test_two_behind_closed_routers_meet_where_others_see_them(lab: Lab, invite: str) -> None:
    """Nobody but members is asked: who has a tunnel to a node sees where it comes from, and tells it."""
    closed, guest = lab.node("closed"), lab.node("guest")
    meshkit.join(closed, invite)
    meshkit.until(lambda: meshkit.pings(guest, "closed.mesh"), "guest reaches closed", 30)
    meshkit.until(lambda: meshkit.peers(guest)["closed"].path == "direct", "it is a tunnel of their own")
    ends = {"closed": lab.node("r1").address("net"), "guest": lab.node("r3").address("net")}
    assert meshkit.peers(guest)["closed"].endpoint == f"{ends['closed']}:51820"
    assert meshkit.peers(closed)["guest"].endpoint == f"{ends['guest']}:51820"
    closed.run(["ping", "-c1", "-W2", "open.mesh"])


def test_members_of_two_homes_have_a_link_through_their_tunnel(lab: Lab) -> None:
    closed, guest = lab.node("closed"), lab.node("guest")
    meshkit.until(lambda: meshkit.peers(guest)["closed"].link == "up", "guest is linked to closed", 60)
    meshkit.until(lambda: meshkit.peers(closed)["guest"].state == "alive", "closed sees guest alive")
