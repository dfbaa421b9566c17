#!/usr/bin/env python3
"""Groups of ranks from megatron-core's RankGenerator, and the mappings that Megatron refuses.

usage: make_megatron_ranks.py OUT_DIR        (writes OUT_DIR/ranks.json; its "notes" say what is in it)
"""
import argparse
import pathlib
import warnings

warnings.filterwarnings("ignore")
import megatron.core
from megatron.core.parallel_state import RankGenerator

from make_megatron import write

NOTES = [
    "ranks, tp, cp, ep, etp, pp, order: the mapping; dp and edp follow",
    "dense and experts: for each selection of axes, joined by -, all groups of ranks that differ only along them",
    "groups are in Megatron's own order, as are the ranks of a group; names of axes are those of Konclave",
    "rejected: why is \"ranks\" when the sizes do not divide the number of ranks, \"order\" otherwise",
]
DENSE = ("tp", "cp", "dp", "pp", "dp-cp", "tp-pp", "tp-cp", "tp-dp", "tp-dp-cp")
EXPERTS = {"etp": "tp", "ep": "ep", "edp": "dp", "pp": "pp", "etp-ep": "tp-ep", "etp-ep-pp": "tp-ep-pp",
           "ep-edp": "ep-dp"}   # Konclave's names to Megatron's
USUAL, PP_INSIDE = "tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp"
KEYS = ("ranks", "tp", "cp", "ep", "etp", "pp", "order")
MAPPINGS = [
    (1, 1, 1, 1, 1, 1, USUAL), (2, 1, 1, 2, 1, 1, USUAL), (3, 1, 1, 3, 1, 1, USUAL), (4, 1, 1, 1, 1, 1, USUAL),
    (4, 1, 1, 2, 1, 1, USUAL), (4, 1, 1, 4, 1, 1, USUAL), (6, 1, 1, 3, 1, 1, USUAL), (8, 1, 1, 4, 1, 1, USUAL),
    (4, 2, 1, 2, 2, 1, USUAL), (8, 2, 1, 2, 2, 2, USUAL), (8, 2, 1, 4, 1, 1, USUAL), (8, 2, 2, 8, 1, 1, USUAL),
    (8, 1, 2, 4, 1, 2, USUAL), (8, 4, 1, 8, 1, 1, USUAL), (12, 3, 1, 2, 1, 2, USUAL), (16, 2, 2, 4, 1, 2, USUAL),
    (16, 2, 2, 4, 2, 2, USUAL), (16, 4, 2, 8, 1, 2, USUAL), (16, 1, 1, 2, 4, 2, USUAL), (32, 2, 2, 8, 1, 2, USUAL),
    (32, 4, 1, 4, 2, 4, USUAL), (16, 2, 1, 4, 1, 4, USUAL), (16, 2, 2, 8, 1, 2, USUAL),
    (8, 1, 1, 4, 1, 1, "tp-cp-dp-ep-pp"), (8, 1, 1, 2, 1, 1, "dp-ep"), (8, 2, 1, 2, 1, 2, PP_INSIDE),
    (16, 2, 2, 2, 2, 2, PP_INSIDE), (8, 2, 2, 4, 2, 1, "tp-ep-dp-pp-cp"), (16, 2, 2, 2, 2, 2, "ep-cp-dp-tp-pp"),
    (8, 2, 1, 1, 2, 2, "pp-dp-tp"), (16, 2, 1, 2, 1, 4, "pp-tp-ep-dp"),
    # Refused:
    (6, 1, 1, 4, 1, 1, USUAL), (8, 3, 1, 1, 1, 1, USUAL), (8, 2, 1, 4, 2, 2, USUAL), (8, 2, 1, 2, 2, 2, PP_INSIDE),
    (4, 1, 1, 2, 1, 1, "tp-cp-dp-pp"), (4, 1, 1, 1, 1, 1, "tp-cp-ep-pp"), (4, 1, 2, 1, 1, 1, "tp-ep-dp-pp"),
    (4, 1, 1, 1, 2, 1, "cp-ep-dp-pp"), (16, 2, 1, 4, 1, 2, PP_INSIDE), (16, 2, 2, 2, 1, 2, PP_INSIDE),
    (16, 2, 1, 2, 1, 2, "tp-pp-ep-dp"), (8, 1, 2, 1, 1, 2, "tp-ep-pp-cp-dp"), (16, 2, 1, 2, 1, 2, "ep-pp-dp-tp"),
]


class Refused(Exception):
    pass


def generators(ranks, tp, cp, ep, etp, pp, order):
    """The two RankGenerators of initialize_model_parallel, after its checks."""
    if ranks % (tp * cp * pp) or ranks % (etp * ep * pp):
        raise Refused("ranks")
    dp, edp = ranks // (tp * cp * pp), ranks // (etp * ep * pp)
    try:
        dense = RankGenerator(tp=tp, ep=1, dp=dp, pp=pp, cp=cp, order=order)
        experts = RankGenerator(tp=etp, ep=ep, dp=edp, pp=pp, cp=1, order=order)
    except RuntimeError as error:
        raise Refused("order") from error
    if not (order.endswith("pp") or pp == 1 or edp == dp) or dense.get_ranks("pp") != experts.get_ranks("pp"):
        raise Refused("order")
    return dense, experts


def mappings():
    accepted, rejected = [], []
    for values in MAPPINGS:
        mapping = dict(zip(KEYS, values))
        try:
            dense, experts = generators(*values)
        except Refused as refused:
            rejected.append({**mapping, "why": str(refused)})
            continue
        accepted.append({**mapping,
                         "dense": {name: dense.get_ranks(name) for name in DENSE},
                         "experts": {name: experts.get_ranks(theirs) for name, theirs in EXPERTS.items()}})
    return {"notes": NOTES, "versions": {"megatron_core": megatron.core.__version__}, "accepted": accepted,
            "rejected": rejected}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    out_dir = parser.parse_args().out_dir
    data = mappings()
    write(data, out_dir, "ranks")


if __name__ == "__main__":
    main()
