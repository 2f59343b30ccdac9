"""What unit tests share."""

from __future__ import annotations

import pytest

from tests.unit import body_code


@pytest.fixture
def ran() -> list[object]:
    """What the steps of `body_code` are called with while a test runs."""
    body_code.ran.clear()
    return body_code.ran
