#!/usr/bin/env python3
"""Checks that each include follows the arrows between the rooms (docs/architecture.md)."""

import re

from common import complaint, includes, main, numbered_lines, sources

# room -> the rooms whose headers it may include, its own apart.
BELOW_PARALLEL = {"base", "tensor", "ops", "comm"}
UP_TO_MODEL = BELOW_PARALLEL | {"parallel", "layers", "moe", "model"}
SIDE_ROOMS = {"deck", "data", "plan", "checkpoints"}  # hang off parallel and model, used by run, bench and app
UP_TO_TRAIN = UP_TO_MODEL | {"train"}
UP_TO_RUN = UP_TO_TRAIN | SIDE_ROOMS | {"run"}
ALLOWED = {
    "base": set(),
    "tensor": {"base"},
    "ops": {"base", "tensor"},
    "comm": {"base", "tensor"},
    "parallel": BELOW_PARALLEL,
    "layers": BELOW_PARALLEL | {"parallel"},
    "moe": BELOW_PARALLEL | {"parallel", "layers"},
    "model": BELOW_PARALLEL | {"parallel", "layers", "moe"},
    "train": UP_TO_MODEL,
    **{room: UP_TO_MODEL for room in SIDE_ROOMS},
    "checkpoints": UP_TO_MODEL | {"data"},  # safetensors files
    "run": UP_TO_TRAIN | SIDE_ROOMS,
    "bench": UP_TO_RUN,
    "app": UP_TO_RUN | {"bench"},
}
BACKEND_ALLOWED = BELOW_PARALLEL
SEES_EVERY_CONFIG = "deck"  # may include config.hpp of any room

# Told their ranks by whoever builds them.
WORLD_BLIND = {"layers", "moe", "model"}


def backends(root):
    folder = root / "backends"
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()


def room_of(root, path):
    """`ops` for src/ops/x.hpp, `checkpoints` for checkpoints/x.hpp, `backends/onednn` for a backend."""
    top, *rest = path.relative_to(root).parts
    if top == "src":
        return rest[0] if len(rest) > 1 else "src"
    return f"backends/{rest[0]}" if top == "backends" else top


def is_project_include(root, quoted, target):
    return quoted or any((root / folder / target).is_file() for folder in ("src", "backends", "."))


def judge(room, target, backend_names):
    """None, or why a file of `room` may not include "target"."""
    first, slash, name = target.partition("/")
    if first in ("", ".", "..") or not slash:
        return f'"{target}": write includes from the source root, "room/file.hpp"'
    if room == "src":
        return "sources belong in a room below src"
    mine = room.removeprefix("backends/")
    if first == mine:
        return None
    if first in backend_names:
        return f'{room} includes "{target}": backends are reached through the operation table only'
    if first not in ALLOWED:
        return f'"{target}": no such room; libraries are included with <>'
    if room.startswith("backends/"):
        allowed = first in BACKEND_ALLOWED
    elif room in ALLOWED:
        allowed = first in ALLOWED[room] or (room == SEES_EVERY_CONFIG and name == "config.hpp")
    else:
        return f"room {room} is not in the table of tests/style/check_layers.py"
    return None if allowed else f'{room} includes "{target}": against the arrows'


def check(root):
    backend_names = backends(root)
    for path in sources(root, "src", "checkpoints", "backends"):
        room = room_of(root, path)
        for line, quoted, target in includes(path):
            if is_project_include(root, quoted, target):
                reason = judge(room, target, backend_names)
                if reason:
                    yield complaint(root, path, line, reason)
        if room in WORLD_BLIND:
            for line, text in numbered_lines(path, keep_strings=False):
                if re.search(r"\bMPI_COMM_WORLD\b", text):
                    yield complaint(root, path, line, f"{room} names MPI_COMM_WORLD: take a group instead")


GOOD = {
    "src/base/error.hpp": "#pragma once\n#include <string>\n",
    "src/ops/gemm.hpp": '#include "base/error.hpp"\n// #include "model/block.hpp"\n',
    "src/train/config.hpp": "#pragma once\n",
    "src/deck/entries.cpp": '#include "deck/entries.hpp"\n#include "train/config.hpp"\n',
    "src/moe/router.cpp": '#include "layers/linear.hpp"\n/* MPI_COMM_WORLD */\n',
    "src/run/loop.cpp": '#include "checkpoints/writer.hpp"\n',
    "checkpoints/writer.cpp": '#include "checkpoints/writer.hpp"\n#include "model/transformer.hpp"\n',
    "backends/onednn/offer.cpp": '#include "onednn/gemm.hpp"\n#include "ops/op_table.hpp"\n#include <dnnl.hpp>\n',
    "backends/reference/gemm.hpp": "#pragma once\n",
}
BAD = [
    ({"src/ops/x.cpp": '\n#include "model/block.hpp"\n'}, "src/ops/x.cpp:2:"),
    ({"src/ops/x.cpp": '#include "comm/communicator.hpp"\n'}, "src/ops/x.cpp:1:"),
    ({"src/train/x.cpp": '#include "checkpoints/writer.hpp"\n'}, "src/train/x.cpp:1:"),
    ({"src/deck/x.cpp": '#include "train/step.hpp"\n'}, "src/deck/x.cpp:1:"),
    ({"src/app/main.cpp": '#include "onednn/gemm.hpp"\n'}, "src/app/main.cpp:1:"),
    ({"src/ops/x.cpp": '#include "gemm.hpp"\n'}, "src/ops/x.cpp:1:"),
    ({"src/ops/x.cpp": '#include "../base/error.hpp"\n'}, "src/ops/x.cpp:1:"),
    ({"src/base/x.cpp": "#include <ops/gemm.hpp>\n"}, "src/base/x.cpp:1:"),
    ({"src/tools/x.cpp": '#include "base/error.hpp"\n'}, "src/tools/x.cpp:1:"),
    ({"src/base/x.cpp": '#include "fmt/core.h"\n'}, "src/base/x.cpp:1:"),
    ({"checkpoints/x.cpp": '#include "run/loop.hpp"\n'}, "checkpoints/x.cpp:1:"),
    ({"backends/onednn/x.cpp": '#include "layers/linear.hpp"\n'}, "backends/onednn/x.cpp:1:"),
    ({"backends/onednn/x.cpp": '#include "reference/gemm.hpp"\n'}, "backends/onednn/x.cpp:1:"),
    ({"src/moe/x.cpp": "int rank(MPI_COMM_WORLD);\n"}, "src/moe/x.cpp:1:"),
]

if __name__ == "__main__":
    main(check, GOOD, BAD)
