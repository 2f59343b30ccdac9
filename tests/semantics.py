"""Which sentences of the contract, SEMANTICS.md, have a test that names them.

A test names what it proves by section and words::

    @pytest.mark.semantics("3", "Nothing affected is ever reused", "Affected = roots")

The words are any part of a sentence, of a table's row or of a bullet, without its backticks and asterisks.

    python -m tests.semantics 2 3 4     what is not named yet in these sections, and what is named and not there
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
CONTRACT = TESTS.parent.parent / "shared" / "SEMANTICS.md"

_SECTION = re.compile(r"^## (\d+)\. .*\n", re.MULTILINE)
_CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\)?\s+(?=[A-Z(\"`*])")
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ")


@dataclass(frozen=True, slots=True, order=True)
class Passage:
    """A sentence of the contract, or words that a test cites."""

    section: str
    words: str
    place: str = ""


def sentences(contract: str) -> Iterator[Passage]:
    """The sentences, rows and bullets of every section, as plain words."""
    _, *parts = _SECTION.split(_CODE_BLOCK.sub("", contract))
    for section, text in zip(parts[::2], parts[1::2], strict=True):
        for paragraph in _paragraphs(text):
            pieces = [paragraph] if paragraph.startswith("|") else _SENTENCE_END.split(paragraph)
            for piece in pieces:
                yield Passage(section, plain(piece))


def _paragraphs(text: str) -> Iterator[str]:
    gathered: list[str] = []
    rows_seen = 0
    for line in [*text.splitlines(), ""]:
        is_row = line.startswith("|")
        if gathered and (not line.strip() or is_row or _ITEM.match(line)):
            yield " ".join(gathered)
            gathered = []
        rows_seen = rows_seen + 1 if is_row else 0
        if is_row and rows_seen > 2:
            yield line
        elif line.strip() and not is_row:
            gathered.append(_ITEM.sub("", line).strip())


def plain(markdown: str) -> str:
    """Words without marks of emphasis and of code, with single spaces."""
    return " ".join(re.sub(r"[`*]", "", markdown).split()).strip("| ")


def citations(folder: Path = TESTS) -> Iterator[Passage]:
    """What the tests below a folder cite, each with the file and line where it does."""
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.semantics":
                section, *cited = [ast.literal_eval(argument) for argument in node.args]
                for words in cited:
                    yield Passage(section, plain(words), f"{path.relative_to(folder.parent)}:{node.lineno}")


def unnamed(contract: str, cited: Iterable[Passage], sections: Iterable[str]) -> list[Passage]:
    """Sentences of these sections that no test names."""
    by_section: dict[str, list[str]] = {}
    for passage in cited:
        by_section.setdefault(passage.section, []).append(passage.words)
    return [
        sentence
        for sentence in sentences(contract)
        if sentence.section in sections and not any(w in sentence.words for w in by_section.get(sentence.section, []))
    ]


def unfounded(contract: str, cited: Iterable[Passage]) -> list[Passage]:
    """Citations of words that the contract does not have in that section."""
    written: dict[str, list[str]] = {}
    for sentence in sentences(contract):
        written.setdefault(sentence.section, []).append(sentence.words)
    return [
        passage
        for passage in cited
        if not any(passage.words in sentence for sentence in written.get(passage.section, []))
    ]


def main(sections: list[str]) -> int:
    contract = CONTRACT.read_text(encoding="utf-8")
    cited = list(citations())
    missing, wrong = unnamed(contract, cited, sections), unfounded(contract, cited)
    for passage in missing:
        print(f"§{passage.section} has no test: {passage.words}")
    for passage in wrong:
        print(f"{passage.place} cites what §{passage.section} does not say: {passage.words}")
    print(f"{len(missing)} sentences without a test, {len(wrong)} citations without a sentence")
    return 1 if missing or wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
