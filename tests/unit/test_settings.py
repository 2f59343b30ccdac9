"""Settings: every one is documented, and what is wrong is said of all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from dalsegno.errors import UsageError
from dalsegno_planner.settings import Settings, read_settings

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `(DALSEGNO_[A-Z_]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
_OF_PLANNERS, *_OF_OTHERS = (_ROOT / "deploy" / "SETTINGS.md").read_text(encoding="utf-8").split("\n## ")[1:]


def _read_anywhere() -> set[str]:
    """The variables that the source names, but for those of planners."""
    folders = ("sdk/dalsegno", "executor/dalsegno_executor")
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in (_ROOT / folder).rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"\bDALSEGNO_[A-Z_]+\b", text)}
    return named - {f"DALSEGNO_{name.upper()}" for name in Settings.model_fields}


def _shown(setting: FieldInfo) -> str:
    if setting.is_required() or setting.default is None:
        return "none"
    return f"`{setting.default:g}`" if isinstance(setting.default, float) else f"`{setting.default}`"


def test_every_setting_of_a_planner_is_documented_as_it_is() -> None:
    documented = {variable: (default, what) for variable, default, what in _ROW.findall(_OF_PLANNERS)}
    assert list(documented) == [f"DALSEGNO_{name.upper()}" for name in Settings.model_fields]
    for name, setting in Settings.model_fields.items():
        default, what = documented[f"DALSEGNO_{name.upper()}"]
        assert what == setting.description
        if setting.default_factory is None:
            assert default == _shown(setting)


def test_every_variable_of_other_processes_is_documented() -> None:
    documented = {variable for part in _OF_OTHERS for variable, _, _ in _ROW.findall(part)}
    assert documented - {"DALSEGNO_PAYLOAD_LIMIT"} == _read_anywhere()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DALSEGNO_{name.upper()}", raising=False)
    return monkeypatch


def test_what_is_set_to_nothing_is_not_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DALSEGNO_DATABASE_URL", "postgresql://here/it")
    environment.setenv("DALSEGNO_RETENTION_DAYS", "")
    environment.setenv("DALSEGNO_INLINE_LIMIT", "")
    settings = read_settings()
    assert (settings.retention_days, settings.inline_limit) == (None, 65_536)


def test_all_that_is_wrong_is_said_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DALSEGNO_LISTEN", "here")
    environment.setenv("DALSEGNO_LOG_FORMAT", "xml")
    with pytest.raises(UsageError) as refused:
        read_settings()
    assert refused.value.reason == "INVALID_SETTING"
    for said in ("DALSEGNO_DATABASE_URL is not set", "DALSEGNO_LISTEN: ", "DALSEGNO_LOG_FORMAT: ", "'console'"):
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "given", [{"LEASE_DURATION": "3"}, {"HEARTBEAT_INTERVAL": "15"}, {"HEARTBEAT_INTERVAL": "2", "LEASE_DURATION": "1"}]
)
def test_a_lease_outlives_the_pause_between_signs_of_life(
    environment: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    environment.setenv("DALSEGNO_DATABASE_URL", "postgresql://here/it")
    for name, value in given.items():
        environment.setenv(f"DALSEGNO_{name}", value)
    with pytest.raises(UsageError, match=r"DALSEGNO_LEASE_DURATION: .*DALSEGNO_HEARTBEAT_INTERVAL.*three times"):
        read_settings()
