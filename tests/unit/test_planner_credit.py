"""What a planner knows of an executor's credit, and when it looks for work."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.credit import Credit, Slots

LANES = st.sampled_from(list(Lane))


def test_credit_that_another_lane_has_in_hand_is_looked_at_when_it_comes_back() -> None:
    credit = Credit()
    credit.offer(4, 0)
    in_hand = credit.take(Lane.LIVE, most=100)
    assert credit.take(Lane.BULK, most=100).left == 0
    credit.give_back(Lane.LIVE, in_hand)
    assert credit.wanted(Lane.BULK), "it has not looked yet"
    assert not credit.wanted(Lane.LIVE), "it has, and found nothing"


def test_credit_that_comes_after_a_look_without_any_is_looked_at() -> None:
    credit = Credit()
    assert credit.take(Lane.BULK, most=100).left == 0
    credit.offer(1, 0)
    assert credit.wanted(Lane.BULK)


def test_a_look_that_found_too_little_is_not_repeated_until_there_may_be_more() -> None:
    credit = Credit()
    credit.offer(2, 0)
    slots = credit.take(Lane.BULK, most=100)
    slots.fill()
    credit.give_back(Lane.BULK, slots)
    assert (credit.free, credit.wanted(Lane.BULK)) == (1, False)
    credit.look_again([Lane.BULK])
    assert credit.wanted(Lane.BULK)


def test_what_is_reserved_for_live_work_is_filled_first_and_by_nothing_else() -> None:
    credit = Credit()
    credit.offer(1, 1)
    live = credit.take(Lane.LIVE, most=100)
    assert (live.fill(), live.fill(), live.left) == (True, False, 0)
    credit.give_back(Lane.LIVE, live)
    credit.offer(0, 1)
    assert not credit.wanted(Lane.BULK)


def test_what_one_claim_has_no_room_for_is_left_to_the_next_one() -> None:
    credit = Credit()
    credit.offer(5, 0)
    slots = credit.take(Lane.BULK, most=3)
    assert (slots.left, credit.free) == (3, 2)
    for _ in range(3):
        slots.fill()
    credit.give_back(Lane.BULK, slots)
    assert credit.wanted(Lane.BULK)


def test_what_a_claim_has_in_hand_while_offers_are_withdrawn_is_not_offered_afterwards() -> None:
    credit = Credit()
    credit.offer(5, 2)
    slots = credit.take(Lane.LIVE, most=4)
    slots.fill()
    credit.withdraw()
    credit.offer(1, 0)
    credit.give_back(Lane.LIVE, slots)
    assert (credit.free, credit.reserved) == (1, 0)


class Looking(RuleBasedStateMachine):
    """Claims of two lanes that overlap, beside work that becomes ready: none of it is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = Credit()
        self.ready = dict.fromkeys(Lane, 0)
        self.offered = self.sent = 0
        self.claims: dict[Lane, Slots] = {}
        self.stale: set[Lane] = set()

    @rule(free=st.integers(0, 3), reserved=st.integers(0, 3))
    def offer(self, free: int, reserved: int) -> None:
        self.credit.offer(free, reserved)
        self.offered += free + reserved

    @rule()
    def withdraw(self) -> None:
        self.credit.withdraw()
        self.offered = self.sent + sum(slots.left for slots in self.claims.values())
        self.stale = set(self.claims)

    @rule(lane=LANES, count=st.integers(1, 4))
    def becomes_ready(self, lane: Lane, count: int) -> None:
        self.ready[lane] += count
        self.credit.look_again([lane])

    @precondition(lambda self: len(self.claims) < len(Lane))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane in Lane if lane not in self.claims]))
        self.claims[lane] = self.credit.take(lane, most=data.draw(st.integers(1, 4)))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def found(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.claims)))
        slots = self.claims.pop(lane)
        count = min(slots.left, self.ready[lane])
        for _ in range(count):
            slots.fill()
        self.ready[lane] -= count
        self.sent += count
        if lane in self.stale:
            self.stale.remove(lane)
            self.offered -= slots.left
        self.credit.give_back(lane, slots)

    @invariant()
    def no_work_waits_beside_credit(self) -> None:
        for lane in Lane:
            room = self.credit.free + (self.credit.reserved if lane is Lane.LIVE else 0)
            if lane not in self.claims and self.ready[lane] and room:
                assert self.credit.wanted(lane)

    @invariant()
    def no_credit_is_lost_or_made(self) -> None:
        in_hand = sum(slots.left for slots in self.claims.values())
        assert self.credit.free + self.credit.reserved + in_hand + self.sent == self.offered


TestLooking = Looking.TestCase
