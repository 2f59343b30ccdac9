"""The executing oracle: programs, what has to come of them, and the checks that it does."""

import pytest

pytest.register_assert_rewrite("tests.e2e.oracle.checks", "tests.e2e.oracle.tables")
