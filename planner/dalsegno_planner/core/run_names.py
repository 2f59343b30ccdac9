"""Readable names for runs, such as `quiet-cello-4821`."""

from __future__ import annotations

_ADJECTIVES = """
agile amber bold brave breezy bright brisk calm candid cheerful chilly clear clever cobalt cosmic crimson
crisp curious dapper daring deft eager earnest easy elegant fabled fair fancy fearless festive fleet fluent
fond frosty gallant gentle gilded glad golden graceful grand hardy hazel hearty hidden humble ivory jolly
keen kind lively lucid lunar mellow merry mighty misty modest neat nimble noble novel olive pearly placid
plucky polite proud quick quiet radiant rapid regal rosy rustic scarlet serene sharp silent silver sincere
sleek snowy solar spry stately steady stellar sturdy sunny supple swift tender tidy tranquil upbeat valiant
velvet vivid warm wise witty zesty
"""

_NOUNS = """
adagio allegro alto anthem aria ballad bass bassoon beat bolero bridge bugle cadence canon cantata carol
cello celesta chant chime choir chord clarinet coda concerto cornet cymbal descant ditty drum duet dulcimer
echo encore etude fanfare fiddle finale flute forte fugue gong guitar harmony harp horn hymn interlude jig
jingle largo legato lute lyre mandolin march marimba mazurka measure medley melody minuet motif nocturne
nonet oboe octave opus oratorio organ overture piano piccolo polka prelude quartet quaver quintet refrain
rhapsody rhythm rondo scherzo segno serenade sextet sonata sonnet soprano suite symphony tambourine tango
tempo tenor ternary theme timpani toccata treble trio trombone trumpet tuba tune verse viola violin waltz
whistle xylophone zither
"""

_ADJECTIVE_WORDS, _NOUN_WORDS = _ADJECTIVES.split(), _NOUNS.split()

BITS = 40
"""How many random bits make a name."""


def run_name(bits: int) -> str:
    """Return the name that these bits stand for."""
    bits, number = divmod(bits & ((1 << BITS) - 1), 9000)
    bits, noun = divmod(bits, len(_NOUN_WORDS))
    return f"{_ADJECTIVE_WORDS[bits % len(_ADJECTIVE_WORDS)]}-{_NOUN_WORDS[noun]}-{number + 1000}"
