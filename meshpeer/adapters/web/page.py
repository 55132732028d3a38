"""Writes a snapshot as a page that Prometheus reads; imported when the first scraper asks.

Names and units are Prometheus': base units, ``_total`` for what only rises, labels for what adds up. A
counter that is still zero is on the page, too, or the first event would be no rise.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from meshpeer.adapters.web.snapshot import Snapshot
from meshpeer.core.counters import Counter


def render(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """Returns the page and its content type: OpenMetrics where ``accept`` (the header) asks for it, else
    Prometheus' text.
    """
    registry = CollectorRegistry()
    registry.register(_Node(snapshot))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Node(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._ends()
        yield from self._relays()
        yield from self._work()
        yield from self._agreement()
        yield from self._by_kind()
        for counter in Counter:
            yield CounterMetricFamily(
                f"meshpeer_{counter}", counter.meaning, value=self._snapshot.counters.get(counter)
            )

    def _gauges(self) -> Iterator[Metric]:
        look = self._snapshot
        info = GaugeMetricFamily(
            "meshpeer_build_info", "1, with the version as its label", labels=["version"]
        )
        info.add_metric([look.version], 1)
        yield info
        members = GaugeMetricFamily(
            "meshpeer_members", "Members by this node's opinion of them, itself included", labels=["state"]
        )
        for state, count in look.members.items():
            members.add_metric([state], count)
        yield members
        paths = GaugeMetricFamily(
            "meshpeer_paths", "Members that live, by how this node reaches them", labels=["path"]
        )
        for path, count in look.paths.items():
            paths.add_metric([path], count)
        yield paths
        revocations = GaugeMetricFamily(
            "meshpeer_revocations", "Revocations held, by whether they count", labels=["state"]
        )
        for state, count in look.revocations.items():
            revocations.add_metric([state], count)
        yield revocations
        yield GaugeMetricFamily("meshpeer_links", "Links that are up", value=look.links)
        yield GaugeMetricFamily(
            "meshpeer_event_loop_lag_seconds",
            "How late the node ran at worst in the last 10 s",
            value=look.event_loop_lag_s,
        )
        yield GaugeMetricFamily(
            "meshpeer_local_health",
            "How far this node mistrusts its own eyes, 0 (not at all) to 7; it stretches time-outs",
            value=look.local_health,
        )

    def _ends(self) -> Iterator[Metric]:
        """What nobody knows is left out: a zero would be a time long ago."""
        look = self._snapshot
        for name, meaning, at in (
            ("certificate_end", "When this node's certificate ends", look.certificate_ends_unix_s),
            ("issuer_heard", "When an issuer was heard of last, whichever it was", look.issuer_heard_unix_s),
        ):
            if at is not None:
                yield GaugeMetricFamily(f"meshpeer_{name}_timestamp_seconds", meaning, value=at)

    def _work(self) -> Iterator[Metric]:
        work = self._snapshot.work
        for name, meaning, states in (
            ("jobs", "Jobs that this node owns and that have not ended", work.jobs),
            ("tasks", "Tasks of the jobs that this node owns and that have not ended", work.tasks),
        ):
            family = GaugeMetricFamily(f"meshpeer_{name}", meaning, labels=["state"])
            for state, count in states.items():
                family.add_metric([state], count)
            yield family
        for name, meaning, value in (
            ("slots", "Slots for tasks; 0 while none are taken", work.slots),
            ("slots_busy", "Slots that tasks have", work.slots_busy),
            ("attempts_waiting", "Attempts that wait here for a slot", work.attempts_waiting),
            ("results_waiting", "Results that their owners have not acknowledged", work.results_waiting),
        ):
            yield GaugeMetricFamily(f"meshpeer_{name}", meaning, value=value)

    def _relays(self) -> Iterator[Metric]:
        look = self._snapshot
        yield GaugeMetricFamily(
            "meshpeer_relayed_tunnels", "Tunnels of this node that go by a relay", value=look.relayed_tunnels
        )
        yield GaugeMetricFamily(
            "meshpeer_relayed_pairs", "Pairs of others that this node relays", value=look.relayed_pairs
        )
        yield GaugeMetricFamily(
            "meshpeer_relayed_bytes",
            "Bytes that crossed so far for the pairs that it relays now",
            value=look.relayed_bytes,
        )

    def _agreement(self) -> Iterator[Metric]:
        look = self._snapshot.agreement
        members = GaugeMetricFamily(
            "meshpeer_agreement_members",
            "Members by whether they derive their plan from the same facts as this node, itself included",
            labels=["state"],
        )
        for state, count in look.members.items():
            members.add_metric([state], count)
        yield members
        differing = GaugeMetricFamily(
            "meshpeer_agreement_differing_members",
            "Members that differ from this node in a part of the facts",
            labels=["part"],
        )
        for part, count in look.parts.items():
            differing.add_metric([part], count)
        yield differing
        yield GaugeMetricFamily(
            "meshpeer_agreement_difference_max_seconds",
            "How long the oldest difference from another member lasts, 0 where there is none",
            value=look.longest_s,
        )

    def _by_kind(self) -> Iterator[Metric]:
        labels = ["direction", "kind"]
        frames = CounterMetricFamily("meshpeer_link_frames", "Frames on control links", labels=labels)
        sizes = CounterMetricFamily(
            "meshpeer_link_bytes", "Bytes of frames on control links, before TLS", labels=labels
        )
        for direction, kind, count, frame_bytes in self._snapshot.counters.by_kind():
            frames.add_metric([direction, kind], count)
            sizes.add_metric([direction, kind], frame_bytes)
        yield frames
        yield sizes
