"""Settings of a planner, read from the environment: `DALSEGNO_` and the name in capitals."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from dalsegno.errors import UsageError
from dalsegno_planner.logs import LogFormat

_PREFIX = "DALSEGNO_"


class Settings(BaseSettings):
    """Every setting of a planner, with its default. `deploy/SETTINGS.md` lists them, and those of other processes."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    database_url: str = Field(description="Postgres, as postgresql://user@host:port/database.")
    listen: str = Field(
        default="127.0.0.1:7317",
        description="Where to serve: host:port, [ipv6]:port or unix:/path. Loopback unless told otherwise.",
    )
    object_store: str = Field(
        default_factory=lambda: (Path.home() / ".dalsegno" / "objects").as_uri(),
        description="Where values above the inline limit are kept: file:///…, s3://…, gs://…, az://….",
    )
    inline_limit: int = Field(default=65_536, ge=0, description="Values up to this many bytes are kept in Postgres.")
    payload_limit: int = Field(default=268_435_456, gt=0, description="Values above this many bytes are refused.")
    heartbeat_interval: float = Field(default=3.0, gt=0, description="Seconds between an executor's signs of life.")
    lease_duration: float = Field(
        default=15.0,
        gt=0,
        validate_default=True,
        description="Seconds after an executor's last sign of life until others get its tasks.",
    )
    accept_within: float = Field(default=5.0, gt=0, description="Seconds within which a task is to be accepted.")
    cancel_grace: float = Field(
        default=5.0, ge=0, description="Seconds that a step has to stop that was told to, before its process is ended."
    )
    pool_size: int = Field(default=10, ge=1, description="Database connections of the services, at most.")
    dispatch_pool_size: int = Field(default=3, ge=1, description="Database connections of the dispatcher, at most.")
    poll_interval: float = Field(
        default=1.0, gt=0, description="Seconds between looks at the database behind the wake-ups."
    )
    retention_days: float | None = Field(
        default=None,
        gt=0,
        description="Days after their end for which executions are kept, unless replays read from them. For ever where "
        "it is not set. What they alone had in the object store goes a day later.",
    )
    stop_grace: float = Field(default=5.0, ge=0, description="Seconds that open requests get when the planner stops.")
    max_message_size: int = Field(
        default=64 * 1024 * 1024, gt=0, description="Bytes of a message that it takes, at most."
    )
    log_level: str = Field(default="info", description="debug, info, warning, error or critical.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: console on a terminal, else json."
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        if not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("expected postgresql://user@host:port/database")
        return value

    @field_validator("lease_duration")
    @classmethod
    def _outlives_heartbeats(cls, value: float, info: ValidationInfo) -> float:
        interval = info.data.get("heartbeat_interval")
        if interval is not None and value <= interval:
            raise ValueError(
                f"{value:g} s are over before executors say again that they are alive, every {interval:g} s "
                f"({_PREFIX}HEARTBEAT_INTERVAL), so that each would lose its tasks; set it to three times that, or more"
            )
        return value

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value.startswith("unix:/"):
            return value
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65536):
            raise ValueError("expected host:port, such as 127.0.0.1:7317, or unix:/path/of/a/socket")
        return value

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, value: str) -> str:
        if value.lower() not in ("debug", "info", "warning", "error", "critical"):
            raise ValueError("expected debug, info, warning, error or critical")
        return value.lower()


def read_settings() -> Settings:
    """Read the environment.

    Raises:
        UsageError: Naming every variable that is missing or wrong.
    """
    try:
        return Settings()  # type: ignore[call-arg] # the environment gives them
    except ValidationError as error:
        raise UsageError(
            "the planner's settings are wrong; each is an environment variable:\n"
            + "\n".join(_said(one) for one in error.errors()),
            reason="INVALID_SETTING",
        ) from None


def _said(error: ErrorDetails) -> str:
    variable = f"{_PREFIX}{str(error['loc'][0]).upper()}"
    if error["type"] == "missing":
        return (
            f"{variable} is not set; set it to a database of PostgreSQL 15 or later, as "
            "postgresql://user@host:port/database (dalsegno up starts an engine that needs none)"
        )
    return f"{variable}: {error['msg']}"
