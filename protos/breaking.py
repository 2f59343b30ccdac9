"""Checks the protos for breaking changes against those that landed last on the main branch.

Skipped, and said so, where there is nothing to compare with: no git, a first commit, a shallow clone.
"""

import io
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPARED = ("protos", "buf.yaml")
LANDED = ("origin/main", "main", "HEAD")


def main() -> int:
    """Returns buf's exit code: 100 when a change breaks clients."""
    commit = landed_commit()
    if commit is None:
        print("buf breaking: skipped, no landed commit has protos to compare with")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        extract(commit, Path(folder))
        print(f"buf breaking: against {commit[:12]}")
        buf = Path(sysconfig.get_path("scripts")) / "buf"
        return subprocess.run([buf, "breaking", "--against", folder], cwd=ROOT, check=False).returncode


def landed_commit() -> str | None:
    """Finds the newest landed commit that has protos.

    Where the protos here are that commit's own, its parent is meant: compared with itself it says nothing.
    """
    for ref in LANDED:
        commit = git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        if commit is None:
            continue
        if not changed_since(commit):
            commit = git("rev-parse", "--verify", "--quiet", f"{commit}^1^{{commit}}")
        return commit if commit is not None and has_protos(commit) else None
    return None


def changed_since(commit: str) -> bool:
    return git("diff", "--quiet", commit, "--", *COMPARED) is None or bool(
        git("ls-files", "--others", "--exclude-standard", "--", *COMPARED)
    )


def has_protos(commit: str) -> bool:
    return any(
        name.endswith(".proto") for name in (git("ls-tree", "-r", "--name-only", commit, "--", "protos") or "").split()
    )


def extract(commit: str, folder: Path) -> None:
    # buf's configuration may have come later than the protos.
    present = [name for name in COMPARED if git("ls-tree", "--name-only", commit, "--", name)]
    archive = subprocess.run(["git", "archive", commit, "--", *present], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def git(*arguments: str) -> str | None:
    """Returns what git printed, or None where it failed or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
