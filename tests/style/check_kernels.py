#!/usr/bin/env python3
"""Checks what compilers of devices want of kernels, and CPU builds do not notice."""

import re

from common import complaint, main, sources, without_comments

LAMBDA = re.compile(r"\bKOKKOS_(CLASS_)?LAMBDA\b")
ELEMENT = re.compile(r"\bView[123]<[^;{}]*?>\(\s*&\s*[\w.>-]+\(")
BEGINNING = re.compile(r"[;{}]")
GENERIC = re.compile(r"\]\s*\([^()]*\bauto\b[^()]*\)[^(){};]*$")
CLASS = re.compile(r"\b(class|struct)\s+\w+[^(){};]*$")


def kind_of_block(before):
    """What opens with the brace behind the text `before`."""
    for name, pattern in (("generic lambda", GENERIC), ("class", CLASS)):
        if pattern.search(before):
            return name
    return ""


def misplaced_lambdas(text):
    """(place, kind of block) of each kernel that stands where nvcc has none."""
    blocks, since = [], 0
    for match in re.finditer(rf"{BEGINNING.pattern}|{LAMBDA.pattern}", text):
        token = match.group(0)
        if LAMBDA.match(token):
            for kind in sorted(set(blocks) - {""}):
                yield match.start(), kind
            continue
        if token == "{":
            blocks.append(kind_of_block(text[since : match.start()]))
        elif token == "}" and blocks:
            blocks.pop()
        since = match.end()


def check(root):
    for path in sources(root, "src", "checkpoints"):
        text = without_comments(path.read_text(encoding="utf-8"), keep_strings=False)
        for place, kind in misplaced_lambdas(text):
            yield complaint(root, path, text.count("\n", 0, place) + 1,
                            f"a kernel in a {kind}, which nvcc refuses: make it a free function or a template of one")
        for match in ELEMENT.finditer(text):
            yield complaint(root, path, text.count("\n", 0, match.start()) + 1,
                            "names an element of a view on the host, where Kokkos aborts with a device: take data() + place")


GOOD = {
    "src/ops/x.cpp": (
        "namespace a {\nstruct Pair {\n  int b;\n};\ntemplate <typename X> void kernel(View1<X> x) {\n"
        '  parallel_for("x", Range(0, 1), KOKKOS_LAMBDA(const int i) {\n'
        "    row_tiles([=](auto tile) { x(i) = tile; });\n    const X* y = &x(0);\n  });\n}\n"
        "void f() {\n  dispatch([&](auto tag) { kernel(x); });\n  View1<int> v(&count, 1), w(x.data() + 3, 1);\n}\n}\n"
    ),
}
BAD = [
    ({"src/ops/y.cpp": "void f() {\n  dispatch([&](auto tag) {\n    run(KOKKOS_LAMBDA(int i) { x(i) = 0; });\n  });\n}\n"},
     "src/ops/y.cpp:3: a kernel in a generic lambda"),
    ({"src/ops/y.cpp": "const auto g = [&](int a, auto b) -> int { if (a) { run(KOKKOS_LAMBDA(int) {}); } };\n"},
     "src/ops/y.cpp:1: a kernel in a generic lambda"),
    ({"src/ops/y.hpp": "class A : public B {\n  void f() {\n    run(KOKKOS_LAMBDA(int i) { x(i) = 0; });\n  }\n};\n"},
     "src/ops/y.hpp:3: a kernel in a class"),
    ({"src/moe/y.cpp": "auto r = View1<const float>(&of(index, 0), 3);\n"}, "src/moe/y.cpp:1: names an element"),
    ({"src/moe/y.cpp": "t.load = View1<const double>(\n    &step.state.load(layer, 0), 3);\n"}, "src/moe/y.cpp:1: names an element"),
]

if __name__ == "__main__":
    main(check, GOOD, BAD)
