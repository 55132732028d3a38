"""The block is ours, every other byte of the file is its owner's."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshpeer.adapters.hosts import HostsFile, names_in, render_block, replace_block
from meshpeer.adapters.hosts.block import BEGIN, END
from meshpeer.core.errors import EnvironmentFault

BLOCK = (
    f"{BEGIN}\n10.10.0.1\talpha.home.internal alpha.mesh\nfd00::1\talpha.home.internal alpha.mesh\n{END}\n"
)
OWN = "127.0.0.1\tlocalhost\n# mine\n192.168.1.5\tnas\n"


def test_the_names_of_a_block_are_read_back_and_no_others() -> None:
    both = ("10.10.0.1", "fd00::1")
    assert names_in(OWN + BLOCK + OWN) == {"alpha.home.internal": both, "alpha.mesh": both}
    assert names_in(OWN) == {}
    assert names_in(f"{BEGIN}\n\n# x\n{END}\n") == {}


def test_a_member_has_a_line_for_each_address_by_name() -> None:
    members = [("beta", ("fd00::2",)), ("alpha", ("10.10.0.1", "fd00::1"))]
    assert render_block("home", members) == BLOCK.replace(
        END, f"fd00::2\tbeta.home.internal beta.mesh\n{END}"
    )


def test_nobody_needs_no_block() -> None:
    assert render_block("home", []) == ""
    assert render_block("home", [("alpha", ("", ""))]) == ""


@pytest.mark.parametrize(
    ("mesh", "name", "address"),
    [
        ("home", "evil\n1.2.3.4 bank.example", "10.10.0.2"),
        ("home", "evil bank.example", "10.10.0.2"),
        ("home", "alpha", "10.10.0.2\n1.2.3.4"),
        ("home", "", "10.10.0.2"),
        ("ho me", "alpha", "10.10.0.2"),
    ],
)
def test_a_strangers_line_is_never_written(mesh: str, name: str, address: str) -> None:
    assert render_block(mesh, [(name, (address,))]) == ""


def test_the_block_is_added_replaced_and_removed() -> None:
    added = replace_block(OWN, BLOCK)
    assert added == OWN + BLOCK
    other = BLOCK.replace("alpha", "gamma")
    assert replace_block(added, other) == OWN + other
    assert replace_block(added + "10.0.0.9\tlater\n", other) == OWN + "10.0.0.9\tlater\n" + other
    assert replace_block(added, "") == OWN


def test_a_file_without_a_last_line_break_gets_one() -> None:
    assert replace_block("127.0.0.1 localhost", BLOCK) == "127.0.0.1 localhost\n" + BLOCK


def test_two_blocks_become_one() -> None:
    assert replace_block(BLOCK + OWN + BLOCK, BLOCK) == OWN + BLOCK


def test_a_block_without_its_end_loses_our_lines_only() -> None:
    torn = BLOCK.replace(END + "\n", "") + OWN
    assert replace_block(torn, BLOCK) == OWN + BLOCK
    assert replace_block(BLOCK.replace(END + "\n", "") + BLOCK, "") == ""


lines = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["127.0.0.1 localhost\r\n", "\n", "# meshpeer\n"])
)


@given(lines.map("".join))
def test_every_other_line_stays_as_it_is(own: str) -> None:
    own += "" if own.endswith("\n") or not own else "\n"
    added = replace_block(own, BLOCK)
    assert added == own + BLOCK
    assert replace_block(added, BLOCK) == added
    assert replace_block(added, "") == own


# --- the file -----------------------------------------------------------------------------------------------


def test_the_file_keeps_its_bytes_its_mode_and_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    odd = b"127.0.0.1\tlocalhost\r\n# \xff\xfe not UTF-8\n"
    path.write_bytes(odd)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    before = path.stat()
    assert HostsFile(path).write(BLOCK)
    assert path.read_bytes() == odd + BLOCK.encode()
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert HostsFile(path).write("")
    assert path.read_bytes() == odd
    assert list(tmp_path.iterdir()) == [path]


def test_an_equal_block_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(OWN)
    assert HostsFile(path).write(BLOCK)
    inode = path.stat().st_ino
    assert not HostsFile(path).write(BLOCK)
    assert path.stat().st_ino == inode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "hosts"
    real.write_text(OWN)
    link.symlink_to(real)
    assert HostsFile(link).write(BLOCK)
    assert link.is_symlink()
    assert real.read_text() == OWN + BLOCK


def test_a_missing_file_is_made_for_everyone_to_read(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    assert not HostsFile(path).write("")
    assert not path.exists()
    assert HostsFile(path).write(BLOCK)
    assert path.read_text() == BLOCK
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_that_can_not_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=re.escape(f"{tmp_path} can't be written")) as failed:
        HostsFile(tmp_path).write(BLOCK)
    assert "hosts_file = false" in failed.value.hint
