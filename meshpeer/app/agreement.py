"""Shows who derives its plan from the same facts as this node: for ``status``, its warnings, and the page of
metrics."""

from __future__ import annotations

import collections

from meshpeer.adapters.web.snapshot import AgreementFigures
from meshpeer.app.views import name_of
from meshpeer.app.words import few, in_words
from meshpeer.core.deadline import Instant
from meshpeer.core.node.node import Node
from meshpeer.core.topology.digest import PARTS
from meshpeer.runtime.control import Agreement, Differing, Unheard, rfc3339


def agreement_view(node: Node, now: Instant) -> Agreement:
    report = node.agreement.report(now)
    return Agreement(
        agree=report.agree,
        total=report.total,
        differ=tuple(
            Differing(
                name=name_of(node, one.node),
                parts=one.parts,
                since=rfc3339(now.unix_s - one.for_s),
                lasts_s=round(one.for_s, 1),
                travels=not one.lasts,
            )
            for one in report.differ
        ),
        unknown=tuple(
            Unheard(
                name=name_of(node, one.node),
                last_heard_s=None if one.said_s is None else round(one.said_s, 1),
            )
            for one in report.unheard
        ),
    )


def lasting_differences(node: Node, now: Instant) -> list[str]:
    """Returns a warning for each set of parts in which members differ for so long that it is no news on its
    way."""
    by_parts: dict[tuple[str, ...], list[str]] = {}
    for one in node.agreement.report(now).differ:
        if one.lasts:
            by_parts.setdefault(one.parts, []).append(name_of(node, one.node))
    return [
        f"{few(names)} and this node do not agree on {in_words(parts)}: compare `meshpeer peers` and "
        "`meshpeer charter show` there and here"
        for parts, names in by_parts.items()
    ]


def agreement_figures(node: Node, now: Instant) -> AgreementFigures:
    report = node.agreement.report(now)
    parts = collections.Counter(part for one in report.differ for part in one.parts)
    return AgreementFigures(
        members={"agree": report.agree, "differ": len(report.differ), "unknown": len(report.unheard)},
        parts={part: parts[part] for part in PARTS},
        longest_s=max((one.for_s for one in report.differ), default=0.0),
    )
