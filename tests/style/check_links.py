#!/usr/bin/env python3
"""Checks that relative links in Markdown resolve, and that README leads to the router's backward in two links."""

import re
import urllib.parse

from common import complaint, main

SKIPPED_FOLDERS = {".git", "build", "runs", "install"}
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?([^\s>]+)>?")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)

START = "README.md"
GOAL = "src/moe/router.cpp"
GOAL_TEXT = re.compile(r"\bRouter::backward\s*\(")


def markdown_files(root):
    for path in sorted(root.rglob("*.md")):
        if path.relative_to(root).parts[0] not in SKIPPED_FOLDERS:
            yield path


def prose_lines(path):
    """Lines outside fenced code."""
    fence = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and fence is None:
            fence = mark.group(1)[:3]
        elif mark and mark.group(1).startswith(fence):
            fence = None
        elif fence is None:
            yield number, line


def links(path):
    """(line, target) of each link that stays in the repository."""
    for number, line in prose_lines(path):
        plain = re.sub(r"(`+).*?\1", "code", line)  # brackets inside inline code are no links
        for target in LINK.findall(plain) + DEFINITION.findall(plain):
            if not SCHEME.match(target):
                yield number, urllib.parse.unquote(target)


def anchors(path):
    """Names that headings get: lower case, punctuation dropped, spaces to hyphens, repeats numbered."""
    seen = {}
    for _, line in prose_lines(path):
        heading = HEADING.match(line)
        if heading:
            name = re.sub(r"[^\w\- ]", "", heading.group(1).lower()).replace(" ", "-")
            count = seen[name] = seen.get(name, -1) + 1
            yield f"{name}-{count}" if count else name


def resolve(root, path, target):
    """The file that a link names, or None when it leaves the repository or is not there."""
    name = target.partition("#")[0]
    found = (root / name.lstrip("/") if name.startswith("/") else path.parent / name).resolve() if name else path
    return found if found.is_relative_to(root) and found.exists() else None


def check_targets(root):
    for path in markdown_files(root):
        for line, target in links(path):
            found = resolve(root, path, target)
            anchor = target.partition("#")[2]
            if found is None:
                yield complaint(root, path, line, f"link to {target}: no such file in the repository")
            elif anchor and found.suffix == ".md" and anchor not in anchors(found):
                yield complaint(root, path, line, f"link to {target}: no such heading")


def check_way_to_goal(root):
    start, goal = root / START, root / GOAL
    if not start.is_file() or not goal.is_file():
        yield f"{START}:1: the way from {START} to {GOAL} cannot be checked, one of them is missing"
        return
    if not GOAL_TEXT.search(goal.read_text(encoding="utf-8")):
        yield complaint(root, goal, 1, "Router::backward is not in this file")
    first = {resolve(root, start, target) for _, target in links(start)} - {None}
    pages = {page for page in first if page.suffix == ".md"}
    second = {resolve(root, page, target) for page in pages for _, target in links(page)}
    if goal not in first | second:
        yield f"{START}:1: {GOAL} is more than two links away"


def check(root):
    yield from check_targets(root)
    yield from check_way_to_goal(root)


GOOD = {
    "README.md": "# Title, and more\n[map](docs/map.md#the-map) [web](https://example.org/x) [up](#title-and-more)\n",
    "docs/map.md": "## The `map`\n```\n[no](link)\n```\n`[no](link)` [router][r]\n\n[r]: ../src/moe/router.cpp\n",
    "src/moe/router.cpp": "void Router::backward(const Context& context) const {}\n",
}
BAD = [
    ({"docs/x.md": "a\n[b](gone.md)\n"}, "docs/x.md:2:"),
    ({"docs/x.md": "[b](../../outside.md)\n"}, "docs/x.md:1:"),
    ({"docs/x.md": "[b](map.md#no-such)\n"}, "docs/x.md:1:"),
    ({"docs/x.md": "\n[b]: gone.md\n"}, "docs/x.md:2:"),
    ({"docs/map.md": "## The map\nno way on\n"}, "README.md:1: src/moe/router.cpp is more"),
    ({"src/moe/router.cpp": "void Router::forward() {}\n"}, "src/moe/router.cpp:1:"),
]

if __name__ == "__main__":
    main(check, GOOD, BAD)
