"""A flow: research a topic, write a draft, publish it. Plain work on text, the same each time, with no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

from dalsegno import flow, step

LIBRARY: tuple[str, ...] = (
    "The repeat sign is a double bar with two dots; it sends the player back to the last one that faces it.",
    "Dal segno, written D.S., sends the player back to the sign rather than to the beginning.",
    "Da capo, written D.C., sends the player back to the very beginning.",
    "A coda is a closing passage that the player jumps to after the repeat.",
    "Fine marks where the piece ends once the repeat has been played.",
    "First and second endings are bracketed, so that a repeat can close in another way than it did before.",
    "A fermata asks for a note to be held, for as long as the player sees fit.",
    "Crescendo asks for a gradual rise in loudness.",
)
"""What there is to read."""

_WORD = re.compile(r"[a-z]+")
_WITHOUT_WEIGHT = frozenset({"a", "and", "for", "in", "of", "on", "the", "to"})


class Publication(TypedDict):
    """What readers get."""

    slug: str
    words: int
    text: str


@step
def research(topic: str, most: int = 3) -> list[str]:
    """Find the sentences of the library that share most words with the topic."""
    wanted = _words(topic)
    found = [(len(wanted & _words(sentence)), sentence) for sentence in LIBRARY]
    ranked = sorted((-shared, place) for place, (shared, _) in enumerate(found) if shared)
    return [found[place][1] for _, place in ranked[:most]]


@step
def write_draft(topic: str, notes: Sequence[str]) -> str:
    """Turn notes into a draft with a title and one paragraph."""
    return f"{topic.capitalize()}\n\n{' '.join(notes) or 'Nothing is known of this yet.'}"


@step
def publish(draft: str) -> Publication:
    """Give the draft an address and count its words."""
    title, _, body = draft.partition("\n\n")
    return {"slug": "-".join(_WORD.findall(title.lower())), "words": len(body.split()), "text": body}


@flow
def article(topic: str) -> Publication:
    """Research, write, publish."""
    notes = research(topic)
    draft = write_draft(topic, notes)
    return publish(draft)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _WITHOUT_WEIGHT
