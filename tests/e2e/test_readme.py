"""What the README shows works when it is pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno.local import down
from tests.postgres import reachable_folder

README = Path(__file__).parents[2] / "README.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^print\(.*\)\s+# (.+)$", re.MULTILINE)


@pytest.mark.timeout(180)
def test_every_block_prints_what_its_comments_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with reachable_folder() as home:
        monkeypatch.setenv("DALSEGNO_HOME", str(home))
        monkeypatch.delenv("DALSEGNO_ADDRESS", raising=False)
        try:
            for number, block in enumerate(_BLOCKS):
                script = tmp_path / f"pasted_{number}.py"
                script.write_text(block, "utf-8")
                done = subprocess.run(
                    [sys.executable, script], capture_output=True, text=True, timeout=60, env=dict(os.environ)
                )
                assert done.returncode == 0, done.stderr
                expected = [comment.split("; ")[0] for comment in _PRINTED.findall(block)]
                assert done.stdout.splitlines() == expected
        finally:
            down()


def test_the_blocks_are_those_that_are_meant() -> None:
    assert len(_BLOCKS) == 3
    assert sum(len(_PRINTED.findall(block)) for block in _BLOCKS) >= 9
