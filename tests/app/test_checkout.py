"""Where a version alone would not say what runs: in a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from meshpeer.app.checkout import Checkout, find_checkout


def test_installed_package_is_no_checkout(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "meshpeer"
    package.mkdir(parents=True)

    assert find_checkout(package) is None


def test_checkout_names_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    package = _checkout(tmp_path)

    found = find_checkout(package)
    assert found is not None
    assert found.folder == str(tmp_path)
    assert len(found.commit) >= 7
    assert not found.changed
    assert found.words() == f"a checkout of {found.commit}"

    (package / "__init__.py").write_text("changed = True\n")
    changed = find_checkout(package)
    assert changed == Checkout(folder=found.folder, commit=found.commit, changed=True)
    assert changed is not None
    assert changed.words().endswith(" with changes")


def test_checkout_without_git_is_still_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = _checkout(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_checkout(package) == Checkout(folder=str(tmp_path), commit="", changed=False)


def _checkout(folder: Path) -> Path:
    package = folder / "meshpeer"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text("")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return package
