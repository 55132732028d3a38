"""A ``wg`` that fails, whole or half-way: the reason is in ``status``, nothing is lost, and all is well once
it works again."""

from __future__ import annotations

import shutil

import meshkit
import pytest
from conftest import MakeLab
from meshlab import Node

pytestmark = [pytest.mark.netns, pytest.mark.slow]

BROKEN = """#!/bin/sh
# Fails where /run/refuse exists; where /run/half does, after it did the first peer of many.
real={real}
case "$1" in
  set)
    if [ -e /run/refuse ]; then echo "Unable to modify interface: Operation not permitted" >&2; exit 1; fi
    if [ -e /run/half ]; then
      shift 2
      peers=0 words=''
      for word in "$@"; do
        [ "$word" = peer ] && peers=$((peers + 1))
        [ "$peers" -le 1 ] && words="$words $word"
      done
      [ -z "$words" ] || "$real" set wg0 $words
      echo "Unable to modify interface: No buffer space available" >&2
      exit 1
    fi
    ;;
esac
exec "$real" "$@"
"""


def test_a_wg_that_fails_is_named_and_tried_again_until_it_works(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo", "charlie"))
    alpha, bravo, charlie = (lab.node(name) for name in ("alpha", "bravo", "charlie"))
    meshkit.found_mesh(lab, "alpha", "bravo")
    meshkit.until(lambda: meshkit.pings(bravo, "alpha.mesh"), "bravo reaches alpha")
    break_wg(alpha)
    alpha.put_file("/run/refuse", "")
    with meshkit.pinging(bravo, "10.10.0.1"):
        meshkit.join(charlie, meshkit.invite(alpha))
        meshkit.until(lambda: "Operation not permitted" in faults(alpha), "alpha says what fails")
        assert "`wg set wg0" in faults(alpha)
        assert meshkit.agents(alpha), "its agent goes on"
        assert not meshkit.pings(charlie, "10.10.0.1")
        alpha.path("/run/refuse").unlink()
        meshkit.until(lambda: meshkit.pings(charlie, "10.10.0.1"), "charlie reaches alpha", 30)
        meshkit.until(lambda: faults(alpha) == "", "alpha has nothing to complain about")


def test_a_wg_that_fails_half_way_is_tried_again_from_what_is_there(make_lab: MakeLab) -> None:
    lab = make_lab(meshkit.lan("alpha", "bravo", "charlie"))
    alpha = lab.node("alpha")
    meshkit.found_mesh(lab, "alpha", "bravo", "charlie")
    break_wg(alpha)
    alpha.put_file("/run/half", "")
    alpha.run(["ip", "link", "del", meshkit.INTERFACE])
    meshkit.until(lambda: "No buffer space" in faults(alpha), "alpha says what fails", 30)
    alpha.path("/run/half").unlink()
    for name in ("bravo", "charlie"):
        node = lab.node(name)
        meshkit.until(lambda: meshkit.pings(node, "10.10.0.1"), f"{name} reaches alpha", 30)  # noqa: B023
    meshkit.until(lambda: faults(alpha) == "", "alpha has nothing to complain about")
    assert meshkit.plan(alpha).changes == ()


# --- helpers ------------------------------------------------------------------------------------------------


def break_wg(node: Node) -> None:
    """Puts a script in the place of ``wg`` on one machine of a lab."""
    real = shutil.which("wg")
    assert real is not None
    node.put_file("/run/wg.real", "")
    node.put_file("/run/wg.script", BROKEN.format(real="/run/wg.real"), mode=0o755)
    node.run(["mount", "--bind", real, "/run/wg.real"])
    node.run(["mount", "--bind", "/run/wg.script", real])


def faults(node: Node) -> str:
    found = meshkit.status(node).warnings
    return "; ".join(one for one in found if "interface is not as it should be" in one)
