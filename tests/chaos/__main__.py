"""Runs the failure suite by hand: `make chaos SECONDS=600 SEED=1 PLANNERS=3`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Options, run
from tests.chaos.schedule import schedule
from tests.postgres import reachable_folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long there are faults")
    parser.add_argument("--seed", type=int, default=None, help="decides the faults and the work; random if not given")
    parser.add_argument("--planners", type=int, default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--customers", type=int, default=6, help="clients that ask for things, at the same time")
    parser.add_argument("--programs", type=int, default=60, help="random programs that each of them chooses from")
    parser.add_argument("--schedule", action="store_true", help="only print the faults of the seed")
    parser.add_argument("--keep", action="store_true", help="keep logs and journals of a run that passed, too")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    if given.schedule:
        print("\n".join(map(str, schedule(seed, given.seconds))))
        return 0
    print(f"seed {seed}", flush=True)
    options = Options(seed, given.seconds, given.planners, given.workers, given.customers, given.programs)
    with reachable_folder() as folder:
        report = run(options, folder, lambda line: print(line, flush=True))
        if given.keep or not report.ok:
            kept = Path(tempfile.mkdtemp(prefix=f"dalsegno-chaos-{seed}-"))
            for name in ("logs", "journal"):
                (folder / name).rename(kept / name)
            (kept / "report.txt").write_text(report.text)
            print(f"kept in {kept}")
    print(", ".join(f"{number} {name}" for name, number in report.figures.items()))
    if report.ok:
        print("passed")
        return 0
    print(report.text[report.text.index("what is wrong:") :])
    print(f"FAILED: seed {seed}; again: make chaos SEED={seed} SECONDS={given.seconds:g} PLANNERS={given.planners}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
