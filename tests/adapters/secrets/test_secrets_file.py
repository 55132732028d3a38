"""Secrets come from a file that nobody else can read, and no error tells a value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshpeer.adapters.secrets import FileSecrets
from meshpeer.core.errors import LocalFault
from meshpeer.core.jobs.secrets import choose_secrets, parse_secrets

VALUE = "open sesame"


def test_names_get_their_values(tmp_path: Path) -> None:
    secrets = written(tmp_path, f'A = "{VALUE}"\nB = "another one"\n')

    assert secrets.read(("B", "A"), {"alpha"}) == (("B", "another one"), ("A", VALUE))
    assert secrets.read((), {"alpha"}) == ()


def test_new_value_counts_at_once(tmp_path: Path) -> None:
    secrets = written(tmp_path, f'A = "{VALUE}"\n')
    written(tmp_path, 'A = "a new value"\n')

    assert secrets.read(("A",), ()) == (("A", "a new value"),)


def test_secret_is_for_whom_it_is(tmp_path: Path) -> None:
    secrets = written(tmp_path, f'[A]\nvalue = "{VALUE}"\nfrom = ["alpha"]\n')

    assert secrets.read(("A",), {"alpha", "key"}) == (("A", VALUE),)
    with pytest.raises(LocalFault) as refused:
        secrets.read(("A",), {"bravo", "key"})
    with pytest.raises(LocalFault) as absent:
        choose_secrets({}, ("A",), {"bravo"})
    assert refused.value.what == absent.value.what


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    secrets = written(tmp_path, f'A = "{VALUE}"\n')
    (tmp_path / "secrets.toml").chmod(mode)

    with pytest.raises(LocalFault, match="by others"):
        secrets.read(("A",), ())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    secrets = written(tmp_path, f'A = "{VALUE}"\n')
    os.chown(tmp_path / "secrets.toml", 61_000, 61_000)

    with pytest.raises(LocalFault, match="another user"):
        secrets.read(("A",), ())


def test_absent_file_holds_nothing(tmp_path: Path) -> None:
    assert FileSecrets(tmp_path / "none").load() == {}


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secrets.toml", 0o600)

    with pytest.raises(LocalFault, match="no regular file"):
        FileSecrets(tmp_path / "secrets.toml").load()


@pytest.mark.parametrize(
    "content",
    [
        f'A = "{VALUE}',
        f"A = {VALUE}",
        f'A = "{VALUE}"\nA = "{VALUE}"',
        f'[A]\nvalue = "{VALUE}"\nfor = "x"',
        f'[A]\nvalue = "{VALUE}"\nfrom = "x"',
        f'[A]\nvalue = ["{VALUE}"]',
        f'MESHPEER_A = "{VALUE}"',
        f'"a b" = "{VALUE}"',
        f'A = "{VALUE}\\u0000"',
        'A = "short"',
        "A = 12345678",
    ],
)
def test_wrong_file_is_refused_whole_and_its_values_are_not_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(LocalFault) as refused:
        written(tmp_path, content).load()

    assert "sesame" not in f"{refused.value.what} {refused.value.hint} {refused.value.__cause__}"


def test_value_shows_in_no_representation() -> None:
    assert VALUE not in repr(parse_secrets({"A": VALUE}))


def written(folder: Path, content: str) -> FileSecrets:
    path = folder / "secrets.toml"
    path.touch(0o600)
    path.write_text(content)
    return FileSecrets(path)
