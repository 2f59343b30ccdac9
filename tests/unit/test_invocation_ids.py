"""The IDs that calls get."""

from __future__ import annotations

import pytest

from dalsegno.errors import UsageError
from dalsegno.invocation_ids import InvocationIds


def test_calls_of_one_name_are_numbered_past_what_is_taken() -> None:
    ids = InvocationIds()
    given = [ids.give("train"), ids.give("train", "train_2"), ids.give("train"), ids.give("wait")]
    assert given == ["train", "train_2", "train_3", "wait"]


def test_an_id_is_given_once() -> None:
    ids = InvocationIds()
    ids.give("train", "mine")
    with pytest.raises(UsageError, match="'mine' is taken already"):
        ids.give("train", "mine")


@pytest.mark.parametrize("text", ["", "x" * 201, "two\nlines", "nothing\0"])
@pytest.mark.parametrize("explicit", [True, False])
def test_what_cannot_be_stored_or_shown_is_no_id(text: str, explicit: bool) -> None:
    ids = InvocationIds()
    with pytest.raises(UsageError, match="1 to 200 characters that print") as refused:
        ids.give("train" if explicit else text, text if explicit else None)
    assert refused.value.reason == "INVALID_ID"
    assert len(str(refused.value)) < 200
    assert ids.give("y" * 200) == "y" * 200
