"""What the style checks share: walking the sources, dropping comments, reporting, proving that a check can fail."""

import argparse
import re
import sys
import tempfile
from pathlib import Path

SOURCE_SUFFIXES = {".hpp", ".cpp", ".cu", ".cuh"}
HEADER_SUFFIXES = {".hpp", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')

_TOKENS = re.compile(
    r'R"(?P<delimiter>[^\s()\\]{0,16})\(.*?\)(?P=delimiter)"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'  # string
    r"|(?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'"  # character; the look-behind spares 1'000'000
    r"|//[^\n]*|/\*.*?\*/",  # comments
    re.DOTALL,
)


def without_comments(text, keep_strings=True):
    """The text with its comments (and strings, if asked) blanked; lines keep their numbers."""

    def blank(match):
        token = match.group(0)
        if token.startswith("/") or not keep_strings:
            return "\n" * token.count("\n") or " "
        return token

    return _TOKENS.sub(blank, text)


def sources(root, *folders, suffixes=SOURCE_SUFFIXES):
    """Source files below the given folders, in a fixed order; a folder that is not there has none."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path


def numbered_lines(path, keep_strings=True):
    text = path.read_text(encoding="utf-8")
    return enumerate(without_comments(text, keep_strings).splitlines(), start=1)


def includes(path):
    """(line, quoted or not, what) of each include directive."""
    for number, line in numbered_lines(path):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def complaint(root, path, line, text):
    return f"{path.relative_to(root).as_posix()}:{line}: {text}"


def _write_tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _self_test(check, good, bad):
    """`good` must pass; each (files, expected) of `bad`, laid over it, must bring a complaint that starts with `expected`."""
    failures = []
    for files, expected in [({}, None), *bad]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            _write_tree(root, {**good, **files})
            found = list(check(root))
        if expected is None and found:
            failures.append("complains about good input: " + "; ".join(found))
        if expected is not None and not any(message.startswith(expected) for message in found):
            failures.append(f"misses `{expected}`; says {found}")
    for failure in failures:
        print("self-test:", failure)
    print(f"self-test: {len(bad)} seeded faults, {len(failures)} failures")
    return 1 if failures else 0


def main(check, good, bad):
    """Runs `check(root)` on the repository, or proves it on seeded input. Exit code 1 means complaints."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="repository to check")
    parser.add_argument("--self-test", action="store_true", help="check that seeded faults are found")
    arguments = parser.parse_args()
    if arguments.self_test:
        sys.exit(_self_test(check, good, bad))
    complaints = list(check(arguments.root.resolve()))
    for message in complaints:
        print(message)
    sys.exit(1 if complaints else 0)
