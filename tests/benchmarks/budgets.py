"""The budgets, each in one place."""

from __future__ import annotations

from tests.benchmarks.figures import Budget

FLOW_STEP = Budget(1.5, commits=4)
PIPELINE_STEP = Budget(3)
REPLAY_OF_LAST_STEP = Budget(20)
PLAN_OF_A_PART = Budget(5)
PLAN_OF_EVERYTHING = Budget(10)
STEPS_THREADS = Budget(10_000, at_least=True)
STEPS_PROCESSES = Budget(7_500, at_least=True)
STEPS_FROM_CALL_TO_RETURN = Budget(5_000, at_least=True)
REPLAYS_ALONE = Budget(120, at_least=True)
REPLAYS_TOGETHER = Budget(400, at_least=True)
IMPORTED_STEPS = Budget(50_000, at_least=True)
PLANNER_MEMORY = Budget(250)
IMPORT_TIME = Budget(100)
IMPORT_MEMORY = Budget(40)
LIVE_BESIDE_BULK = Budget(3)
AFTER_VERY_MANY_STEPS = Budget(1.2)
PAUSE_OF_A_ROLLING_RESTART = Budget(2)
