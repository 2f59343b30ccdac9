"""Every sentence of the contract has a test that names it, and no test names one that is not there."""

from __future__ import annotations

import pytest

from tests.semantics import CONTRACT, Passage, citations, sentences, unfounded, unnamed

COMPLETE: tuple[str, ...] = ("2", "3", "4", "5", "6", "7", "8", "9", "10")
"""The sections whose every sentence has its test."""

SMALL = """
## 1. Words

| word | meaning |
| --- | --- |
| flow | a function *decorated* `@flow` |

## 2. Rules

Blank: `UsageError`. No match:
`StateError`.
- One item. (Measured
  twice.)
"""


@pytest.fixture
def contract() -> str:
    if not CONTRACT.exists():
        pytest.skip("SEMANTICS.md is not beside this checkout")
    return CONTRACT.read_text(encoding="utf-8")


def test_the_contract_is_read_sentence_by_sentence() -> None:
    assert list(sentences(SMALL)) == [
        Passage("1", "flow | a function decorated @flow"),
        Passage("2", "Blank: UsageError."),
        Passage("2", "No match: StateError."),
        Passage("2", "One item."),
        Passage("2", "(Measured twice.)"),
    ]


def test_a_sentence_is_named_by_any_part_of_it_in_its_section() -> None:
    cited = [Passage("2", "Blank:"), Passage("2", "decorated @flow")]
    assert unnamed(SMALL, cited, ["1"]) == [Passage("1", "flow | a function decorated @flow")]
    assert unfounded(SMALL, cited) == [Passage("2", "decorated @flow")]


def test_tests_cite_what_the_contract_says(contract: str) -> None:
    assert unfounded(contract, citations()) == []


@pytest.mark.parametrize("section", COMPLETE)
def test_every_sentence_has_its_test(contract: str, section: str) -> None:
    assert [passage.words for passage in unnamed(contract, citations(), [section])] == []
