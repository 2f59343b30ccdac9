"""Generates `sdk/dalsegno/v1` from `protos/dalsegno/v1`, or checks that it is up to date.

Run with the interpreter of the project's environment: `make protos`, or `make check` for the check.
"""

import argparse
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "sdk"
PACKAGE = Path("dalsegno/v1")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 when `--check` found a difference or a proto does not compile."""
    parser = argparse.ArgumentParser(description="generate the Python code of the protos")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if what is committed is not current")
    check = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        if not generate(fresh):
            return 1
        differences = compare(fresh)
        if check:
            return report(differences)
        for path in differences:
            replace(path, fresh)
    return 0


def generate(into: Path) -> bool:
    """Compiles every proto, and says whether it went well; protoc prints what did not."""
    protos = sorted((PROTOS / PACKAGE).glob("*.proto"))
    if not protos:
        print(f"no .proto files in {PROTOS / PACKAGE}", file=sys.stderr)
        return False
    # Files of messages alone get no stubs: they would be empty modules.
    services = [path for path in protos if re.search(r"^service ", path.read_text(), re.MULTILINE)]
    return compile_protos(protos, into, "python", "mypy") and compile_protos(services, into, "grpc_python", "mypy_grpc")


def compile_protos(protos: list[Path], into: Path, code: str, stubs: str) -> bool:
    """Runs protoc with the generator `code` and mypy-protobuf's `stubs`."""
    if not protos:
        return True
    # The well-known types come with grpcio-tools, google/rpc with googleapis-common-protos.
    included = (PROTOS, Path(protoc.__file__).parent / "_proto", Path(sysconfig.get_path("purelib")))
    plugin = Path(sysconfig.get_path("scripts")) / f"protoc-gen-{stubs}"
    arguments = [
        "protoc",
        *(f"--proto_path={path}" for path in included),
        f"--plugin={plugin.name}={plugin}",
        f"--{code}_out={into}",
        f"--{stubs}_out=quiet:{into}",
        *(str(path.relative_to(PROTOS)) for path in protos),
    ]
    return int(protoc.main(arguments)) == 0


def compare(fresh: Path) -> list[Path]:
    """Lists, relative to the package's folder, the files that differ, are missing or should not be there."""
    names = {path.name for root in (fresh, GENERATED) for path in (root / PACKAGE).glob("*_pb2*.py*")}
    return [Path(name) for name in sorted(names) if content(fresh, name) != content(GENERATED, name)]


def content(root: Path, name: str) -> bytes | None:
    path = root / PACKAGE / name
    return path.read_bytes() if path.exists() else None


def report(differences: list[Path]) -> int:
    for path in differences:
        print(f"{GENERATED.relative_to(ROOT) / PACKAGE / path} is not what the protos generate", file=sys.stderr)
    if differences:
        print("run `make protos` and commit the result", file=sys.stderr)
    return 1 if differences else 0


def replace(path: Path, fresh: Path) -> None:
    target = GENERATED / PACKAGE / path
    new = content(fresh, path.name)
    if new is None:
        target.unlink()
        print(f"removed {target.relative_to(ROOT)}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(new)
    print(f"wrote {target.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
