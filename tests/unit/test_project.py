"""The project that names belong to."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalsegno.project import PROJECT_SETTING, project_name


@pytest.fixture(autouse=True)
def _without_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROJECT_SETTING, raising=False)


def test_the_nearest_folder_with_a_mark_names_it(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    deep = inner / "a" / "b"
    deep.mkdir(parents=True)
    (outer / ".git").mkdir()
    assert project_name(deep) == "outer"
    (inner / "pyproject.toml").touch()
    assert project_name(deep) == "inner"


def test_without_a_mark_it_is_default() -> None:
    assert project_name(Path("/")) == "default"


def test_the_setting_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv(PROJECT_SETTING, "chosen")
    assert project_name(tmp_path) == "chosen"


def test_the_working_directory_is_where_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert project_name() == tmp_path.name
