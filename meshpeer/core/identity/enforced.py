"""Where each capability is enforced: one table, which docs/security.md shows with a test beside each line.

Every place asks the certificate that counts at that moment (``Ledger.may``), so what a node loses with a
new certificate it loses everywhere at once. ``docs/check.py`` holds that each place is there, and on the
page.
"""

from __future__ import annotations

from dataclasses import dataclass

ROUTES = "routes"
"""Not a capability, but a constraint of the same kind: LANs that a certificate names."""
SETTINGS = "settings"
"""A node's own refusals, which no certificate overrides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place where something is refused to who may not."""

    capability: str
    refused: str
    """What does not happen, in words."""
    where: str
    """The function, as module and name below ``meshpeer``."""


def _places(capability: str, *pairs: tuple[str, str]) -> tuple[Place, ...]:
    return tuple(Place(capability=capability, refused=refused, where=where) for refused, where in pairs)


ENFORCED: tuple[Place, ...] = (
    *_places(
        "member",
        (
            "no record of the node is taken: it has no tunnel, name or address",
            "core.records.bounds.check_constraints",
        ),
    ),
    *_places(
        "submit",
        (
            "its own agent takes no job from the person at it (exit code 4)",
            "app.api_jobs.JobAnswers._check_may_submit",
        ),
        ("no worker takes up a job that it signed", "app.agent.Agent.check_job"),
        (
            "no worker takes further tasks of a job that it knows already",
            "core.scheduler.machine.Scheduler._on_grant",
        ),
    ),
    *_places(
        "work",
        ("no owner grants it a task, whatever it says", "core.scheduler.machine.Scheduler._on_capacity"),
        ("no victim hands it a task", "core.scheduler.machine.Scheduler._on_message"),
        (
            "no owner takes a result of it, or a word on what it holds",
            "core.scheduler.machine.Scheduler._on_offer",
        ),
        (
            "what it had is granted elsewhere; it asks for none, and gives back what waits",
            "core.scheduler.machine.Scheduler._follow_rights",
        ),
    ),
    *_places(
        "hub",
        ("no plan makes it a hub, whatever its record claims", "core.node.layout._member_view"),
        ("it claims nothing itself", "core.node.presence.Presence._profile_now"),
    ),
    *_places(
        "relay",
        ("no pair asks it for ports, whatever its record claims", "core.node.lenders._lends"),
        ("it lends no ports, whoever asks", "core.node.relays.Relays.on_message"),
        ("nobody asks it to carry a link", "core.node.derived.Derived.carriers"),
        ("it carries none", "app.agent.Agent._carries_links"),
    ),
    *_places(
        "issuer",
        (
            "no leaf that it signs stands, without an issuer's certificate",
            "core.identity.chains._check_order",
        ),
        ("an issuer hands on no more than it may itself", "core.identity.admission.issue_durable"),
    ),
    *_places(
        "admin",
        ("no node takes a charter of it", "core.records.ledger.Ledger._merge_charter"),
        ("its own agent signs no charter (exit code 4)", "app.api_charter.CharterAnswers.change_charter"),
        ("no node takes a revocation of it", "core.records.revocation.read_revocation"),
        ("its own agent signs no revocation (exit code 4)", "app.api_revoke.RevokeAnswers._author"),
    ),
    *_places(
        ROUTES,
        ("no node takes a record that names another LAN", "core.records.bounds.check_constraints"),
        ("it advertises none itself, and says so", "core.node.lans.Lans.offer"),
    ),
    *_places(
        SETTINGS,
        ("`[jobs] accept = false`: it takes no task", "core.scheduler.worker.JobWorker.on_grant"),
        ("`[jobs] from`: it takes no job of others", "app.agent.Agent.check_job"),
        ('`[node] hub = "never"`: it is no hub', "core.node.layout._member_view"),
        ("`[relay] accept = false`: it lends no ports", "core.node.relays.Relays.on_message"),
        ("`[relay] accept = false`: it carries no links", "app.agent.Agent._carries_links"),
    ),
)
