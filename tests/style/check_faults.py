#!/usr/bin/env python3
"""Checks the points where tests seed mistakes, fault("name"): each name once, in a source file of a library, and tested."""

import re

from common import HEADER_SUFFIXES, complaint, includes, main, numbered_lines, sources

HEADER = "base/fault.hpp"
POINT = re.compile(r"\bfault\(\s*([^)]*)\)")
NAME = re.compile(r'"([a-z_]+\.[a-z_]+)"')


def tested_names(root):
    return {name for path in sorted((root / "tests").rglob("*.py")) for name in NAME.findall(path.read_text(encoding="utf-8"))}


def check_include(root, path):
    """Files that include the header are compiled again: sources of libraries are, headers and the program's files are not."""
    for line, _, target in includes(path):
        if target == HEADER and path.suffix in HEADER_SUFFIXES:
            yield complaint(root, path, line, f"{HEADER} in a header: who includes that is not compiled again")
        if target == HEADER and path.is_relative_to(root / "src" / "app"):
            yield complaint(root, path, line, f"{HEADER}: only libraries have faults")


def check(root):
    tested, places = tested_names(root), {}
    for path in sources(root, "src", "checkpoints", "backends"):
        if path == root / "src" / HEADER:
            continue
        yield from check_include(root, path)
        for line, text in numbered_lines(path):
            for argument in POINT.findall(text):
                name = NAME.fullmatch(argument)
                if not name:
                    yield complaint(root, path, line, "a fault's name is a literal: room.what")
                elif name.group(1) in places:
                    yield complaint(root, path, line, f"{name.group(1)} is also in {places[name.group(1)]}")
                elif name.group(1) not in tested:
                    yield complaint(root, path, line, f"no test seeds {name.group(1)}")
                if name:
                    places.setdefault(name.group(1), f"{path.relative_to(root).as_posix()}:{line}")


GOOD = {
    "src/base/fault.hpp": "#pragma once\nconstexpr bool fault(std::string_view) { return false; }\n",
    "src/ops/x.cpp": '#include "base/fault.hpp"\nbool a = fault("ops.lost"); // fault("no.point")\n',
    "tests/regression/test_x.py": 'FAULTS = {"ops.lost": 1}\n',
}
BAD = [
    ({"src/ops/y.cpp": '\nbool b = fault("ops.lost");\n'}, "src/ops/y.cpp:2:"),
    ({"src/ops/y.cpp": 'bool b = fault("ops.other");\n'}, "src/ops/y.cpp:1:"),
    ({"src/ops/y.cpp": "bool b = fault(name);\n"}, "src/ops/y.cpp:1:"),
    ({"tests/regression/test_x.py": ""}, "src/ops/x.cpp:2:"),
    ({"src/ops/y.hpp": '#pragma once\n#include "base/fault.hpp"\n'}, "src/ops/y.hpp:2:"),
    ({"src/app/y.cpp": '#include "base/fault.hpp"\n'}, "src/app/y.cpp:1:"),
]

if __name__ == "__main__":
    main(check, GOOD, BAD)
