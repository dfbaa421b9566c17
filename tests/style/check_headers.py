#!/usr/bin/env python3
"""Checks headers and includes: pragma once, own header first, standard headers named (a precompiled header hides gaps)."""

import re

from common import HEADER_SUFFIXES, complaint, includes, main, numbered_lines, sources

FOLDERS = ("src", "backends", "checkpoints", "tests/support")
# What is used -> the standard headers that bring it. Short on purpose: the names that get forgotten.
PROVIDERS = {
    r"std::vector\b": {"vector"},
    r"std::(string|to_string)\b": {"string"},
    r"std::string_view\b": {"string_view", "string"},
    r"std::array\b": {"array"},
    r"std::span\b": {"span"},
    r"std::map\b": {"map"},
    r"std::optional\b": {"optional"},
    r"std::variant\b": {"variant"},
    r"std::function\b": {"functional"},
    r"std::(unique_ptr|shared_ptr|make_unique|make_shared)\b": {"memory"},
    r"std::source_location\b": {"source_location"},
    r"std::filesystem\b": {"filesystem"},
    r"std::[io]fstream\b": {"fstream"},
    r"std::u?int(8|16|32|64)_t\b": {"cstdint"},
    r"std::(sort|stable_sort|min|max|clamp|fill|any_of|all_of|lower_bound|upper_bound)\(": {"algorithm"},
}


def file_of(root, target):
    """The project's file behind "room/name.hpp", or None."""
    candidates = (root / folder / target for folder in ("src", "backends", ".", "tests"))
    return next((path for path in candidates if path.is_file()), None)


def standard_headers(root, path, seen):
    """Standard headers that a file includes, by itself or through the project's headers."""
    if path in seen:
        return set()
    seen.add(path)
    found = set()
    for _, _, target in includes(path):
        project_file = file_of(root, target)
        found |= standard_headers(root, project_file, seen) if project_file else {target}
    return found


def check_names(root, path):
    if not re.fullmatch(r"[a-z0-9_]+\.[a-z]+", path.name):
        yield complaint(root, path, 1, "file names are snake_case")


def check_header(root, path):
    lines = [(number, text) for number, text in numbered_lines(path) if text.strip()]
    if not lines or not re.match(r"\s*#\s*pragma\s+once\b", lines[0][1]):
        yield complaint(root, path, lines[0][0] if lines else 1, "a header starts with #pragma once")
    for number, text in lines:
        if re.match(r"using\s+namespace\b", text):
            yield complaint(root, path, number, "using namespace in a header")


def check_own_header_first(root, path):
    own = path.with_suffix(".hpp")
    if own.is_file():
        first = next(includes(path), (1, True, ""))
        if file_of(root, first[2]) != own:
            yield complaint(root, path, first[0], f"the first include is the file's own header, {own.name}")


def check_standard_headers(root, path):
    present = standard_headers(root, path, set())
    for use, providers in PROVIDERS.items():
        if providers & present:
            continue
        for number, text in numbered_lines(path, keep_strings=False):
            if re.search(use, text):
                yield complaint(root, path, number, f"include <{sorted(providers)[-1]}>: this line needs it")
                break


def check(root):
    for path in sources(root, *FOLDERS):
        yield from check_names(root, path)
        yield from check_header(root, path) if path.suffix in HEADER_SUFFIXES else check_own_header_first(root, path)
        yield from check_standard_headers(root, path)


GOOD = {
    "src/base/text.hpp": "// About.\n#pragma once\n#include <string>\nstd::string units();\n",
    "src/base/text.cpp": '#include "base/text.hpp"\n#include <vector>\nstd::string units() { std::vector<int> v; return {}; }\n',
    "backends/onednn/offer.cpp": "#include <dnnl.hpp>\n",
}
BAD = [
    ({"src/base/x.hpp": "#include <string>\n#pragma once\n"}, "src/base/x.hpp:1: a header"),
    ({"src/base/x.hpp": "#ifndef X\n#define X\n#endif\n"}, "src/base/x.hpp:1: a header"),
    ({"src/base/x.hpp": "#pragma once\nusing namespace std;\n"}, "src/base/x.hpp:2:"),
    ({"src/base/x.hpp": "#pragma once\nstd::vector<int> v;\n"}, "src/base/x.hpp:2: include <vector>"),
    ({"src/base/text.cpp": '#include <string>\n#include "base/text.hpp"\n'}, "src/base/text.cpp:1:"),
    ({"backends/onednn/offer.cpp": "auto p = std::make_unique<int>();\n"}, "backends/onednn/offer.cpp:1: include <memory>"),
    ({"src/base/BadName.hpp": "#pragma once\n"}, "src/base/BadName.hpp:1:"),
]

if __name__ == "__main__":
    main(check, GOOD, BAD)
