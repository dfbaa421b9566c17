"""Which mappings of ranks are legal for a model, and few of them that show every pair of settings
beside each other. Numbers alone: nothing is run. `python3 mappings.py` prints the matrix."""

import collections
import itertools
import typing

RANKS = (1, 2, 3, 4, 6, 8, 12, 16)
ORDERS = ("tp-cp-ep-dp-pp", "tp-cp-dp-ep-pp", "dp-ep-cp-tp-pp", "tp-cp-ep-pp-dp")
CP_COMMS = ("ring", "all_gather", "a2a")
DISPATCHERS = ("alltoall", "allgather")


class Model(typing.NamedTuple):
    """What of decks/matrix.toml the rules ask for. Without experts all layers are dense."""

    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 32
    experts: int = 24
    expert_ffn: int = 12
    length: int = 48
    batch: int = 12
    more: tuple = ()  # overrides that the rules know nothing of

    def overrides(self):
        """What makes this model of the deck's."""
        keys = {"layers": "model.num_layers", "heads": "model.num_heads",
                "kv_heads": "model.num_kv_heads", "ffn": "model.ffn_hidden_size",
                "experts": "moe.num_experts", "expert_ffn": "moe.ffn_hidden_size",
                "length": "model.sequence_length", "batch": "batch.global_size"}
        given = self._asdict()
        return (*(f"{key}={given[name]}" for name, key in keys.items()
                  if given[name] != self._field_defaults[name]), *self.more)


MIXED, DENSE = Model(), Model(experts=0)
UNTIED = Model(kv_heads=2, more=("model.tie_embeddings=false",))

# What the MoE layers of a model are like, several things at a time: a mapping must be right with each.
ROUTINGS = {
    "plain": (),
    "sigmoid": ("moe.score_function=sigmoid", "moe.num_groups=4", "moe.group_top_k=2",
                "moe.scaling_factor=2.5", "moe.balancing=seq_aux_loss", "moe.expert_bias=true",
                "moe.expert_bias_update_rate=0.01", "moe.capacity_factor=1.5",
                "moe.shared_ffn_hidden_size=16", "moe.shared_gate=true"),
    "padded": ("moe.pre_softmax=true", "moe.balancing=[\"aux_loss\", \"global_aux_loss\"]",
               "moe.aux_loss_coefficients=[0.3, 0.2]", "moe.capacity_factor=1.0",
               "moe.pad_to_capacity=true", "moe.drop_policy=position",
               "moe.shared_ffn_hidden_size=8"),
    "sinkhorn": ("moe.balancing=sinkhorn", "moe.aux_loss_coefficients=[]", "moe.input_jitter=0.1",
                 "moe.router_dtype=fp64"),
}
# What is computed again in backward.
RECOMPUTES = {
    "none": (),
    "parts": ("recompute.granularity=selective",
              "recompute.modules=[\"core_attn\", \"layernorm\", \"shared_experts\", \"moe_act\"]"),
    "layers": ("recompute.granularity=selective", "recompute.modules=[\"mlp\", \"moe\"]"),
    "uniform": ("recompute.granularity=full", "recompute.method=uniform", "recompute.layers=1"),
    "block": ("recompute.granularity=full", "recompute.method=block", "recompute.layers=1"),
}


# Who keeps the optimizer's state, and what travels beside computing.
STATES = {
    "whole": (),
    "overlap": ("parallel.overlap_grad_reduce=true", "parallel.bucket_size=128"),
    "shared": ("parallel.distributed_optimizer=true",),
    "both": ("parallel.distributed_optimizer=true", "parallel.overlap_grad_reduce=true",
             "parallel.overlap_param_gather=true", "parallel.bucket_size=128"),
}


class Mapping(typing.NamedTuple):
    ranks: int = 1
    tp: int = 1
    sp: bool = False
    cp: int = 1
    cp_comm: str = "ring"
    pp: int = 1
    vpp: int = 1
    ep: int = 1
    etp: int = 1
    order: str = ORDERS[0]
    micro: int = MIXED.batch
    dispatcher: str = "alltoall"
    model: Model = MIXED
    more: tuple = ()  # as above
    routing: str = "plain"
    recompute: str = "none"
    state: str = "whole"
    overlap_tp: bool = False
    overlap_ep: bool = False

    @property
    def dp(self):
        return self.ranks // (self.tp * self.cp * self.pp)

    @property
    def edp(self):
        return self.ranks // (self.etp * self.ep * self.pp)

    @property
    def micro_batches(self):
        return self.model.batch // (self.micro * self.dp)

    def overrides(self):
        sizes = (f"parallel.{name}={getattr(self, name)}"
                 for name in ("tp", "cp", "cp_comm", "pp", "vpp", "ep", "etp", "order"))
        switches = (f"parallel.{name}={str(getattr(self, name)).lower()}"
                    for name in ("sp", "overlap_tp", "overlap_ep"))
        return (*sizes, *switches, f"batch.micro_size={self.micro}",
                f"moe.dispatcher={self.dispatcher}", *self.more, *self.model.overrides(),
                *ROUTINGS[self.routing], *RECOMPUTES[self.recompute], *STATES[self.state])

    def alone(self):
        """One rank that trains the same model, with the whole batch as a single micro-batch."""
        return Mapping(model=self.model, micro=self.model.batch, routing=self.routing)

    def __str__(self):
        sequence = " " if self.tp == 1 else "s" if self.sp else "-"
        return (f"{self.ranks:5} {self.tp:2}{sequence} {self.cp:2} {self.cp_comm:10} {self.pp:2} "
                f"{self.vpp:3} {self.dp:2} {self.etp:3} {self.ep:2} {self.edp:3} {self.order} "
                f"{self.micro:5} {self.dispatcher:9} {self.routing:8} {self.recompute:9} "
                f"{self.state:7} {'-t'[self.overlap_tp]}{'-e'[self.overlap_ep]}     ")


HEAD = (f"ranks tp  cp {'cp_comm':10} pp vpp dp etp ep edp {'order':{len(ORDERS[0])}} micro "
        f"{'dispatch':9} {'routing':8} {'recompute':9} {'state':7} overlap")  # of a mapping as text


def divides(divisor, number):
    return number % divisor == 0


def axes(mapping):
    """Axis -> its size for dense layers and for experts."""
    return {"tp": (mapping.tp, mapping.etp), "cp": (mapping.cp, 1), "ep": (1, mapping.ep),
            "dp": (mapping.dp, mapping.edp), "pp": (mapping.pp, mapping.pp)}


def strides(mapping):
    """How far apart two neighbours of each axis above 1 are, for dense layers (0) and experts (1):
    of two orders with the same strides only one is of interest."""
    sizes = axes(mapping)
    found = {}
    for kind in (0, 1):
        stride = 1
        for axis in mapping.order.split("-"):
            if sizes[axis][kind] > 1:
                found[kind, axis] = stride
            stride *= sizes[axis][kind]
    return found


def coordinates(mapping, kind):
    """Of each rank: axis -> coordinate, of axes above 1."""
    steps = {axis: stride for (which, axis), stride in strides(mapping).items() if which == kind}
    sizes = axes(mapping)
    return [{axis: rank // stride % sizes[axis][kind] for axis, stride in steps.items()}
            for rank in range(mapping.ranks)]


def shares_of_expert_groups(mapping):
    """For each group of ranks that has all experts once: the shares of the batch, numbers below dp,
    that no rank outside it has a part of."""
    owners = {}
    for dense, routed in zip(coordinates(mapping, 0), coordinates(mapping, 1)):
        if dense.get("pp", 0) == 0:
            owners.setdefault(dense.get("dp", 0), set()).add(routed.get("dp", 0))
    return [[share for share, groups in owners.items() if groups == {group}]
            for group in range(mapping.edp)]


def kv_heads_of_a_rank(m):
    return max(1, m.model.kv_heads // m.tp)


def passes_in_groups(m):
    """Micro-batches in groups of pp; a last group that is smaller would have to have pp as well."""
    return m.vpp == 1 or divides(m.pp, m.micro_batches)


def has_same_stages(m):
    """Dense layers and experts agree on who is in which stage; unless pp is last, dp must be
    edp."""
    if m.pp == 1 or m.order.endswith("pp"):
        return True
    steps = strides(m)
    return m.dp == m.edp and steps[0, "pp"] == steps[1, "pp"]


# The rules that a mapping can break, each with numbers alone.
RULES = {
    "dense layers tile the ranks": lambda m: divides(m.tp * m.cp * m.pp, m.ranks),
    "experts tile the ranks": lambda m: divides(m.etp * m.ep * m.pp, m.ranks),
    "heads by tp": lambda m: divides(m.tp, m.model.heads),
    "heads of keys by tp, or tp by them":
        lambda m: divides(m.tp, m.model.kv_heads) or divides(m.model.kv_heads, m.tp),
    "dense ffn by tp": lambda m: divides(m.tp, m.model.ffn),
    "expert ffn by etp": lambda m: m.model.experts == 0 or divides(m.etp, m.model.expert_ffn),
    "experts by ep": lambda m: divides(m.ep, m.model.experts),
    "ep and etp need experts": lambda m: m.model.experts > 0 or m.ep == m.etp == 1,
    "experts and tp need sp": lambda m: m.model.experts == 0 or m.tp == 1 or m.sp,
    "overlap over tp needs sp": lambda m: not m.overlap_tp or m.tp == 1 or m.sp,
    "length by 2 cp": lambda m: m.cp == 1 or divides(2 * m.cp, m.model.length),
    "rows by tp with sp": lambda m: not m.sp or divides(m.tp, m.model.length // m.cp),
    "a2a: heads of a rank by cp":
        lambda m: m.cp_comm != "a2a" or (divides(m.cp, m.model.heads // m.tp) and
                                         divides(m.cp, kv_heads_of_a_rank(m))),
    "layers by pp": lambda m: divides(m.pp, m.model.layers),
    "vpp needs pp": lambda m: m.vpp == 1 or m.pp > 1,
    "layers of a stage by vpp": lambda m: divides(m.vpp, m.model.layers // m.pp),
    "batch by micro-batch and dp":
        lambda m: m.dp == 0 or divides(m.micro * m.dp, m.model.batch),
    "vpp: micro-batches by pp": lambda m: m.dp == 0 or passes_in_groups(m),
    "order": lambda m: m.dp == 0 or m.edp == 0 or has_same_stages(m),
}


def broken(mapping):
    """Names of the rules that a mapping breaks."""
    return [name for name, holds in RULES.items() if not holds(mapping)]


def is_legal(mapping):
    return all(holds(mapping) for holds in RULES.values())


# What is drawn: the sizes of the matrix, and all that it might have.
SOME = {"tp": (1, 2, 4), "cp": (1, 2, 3, 4), "pp": (1, 2, 4), "vpp": (1, 2), "ep": (1, 2, 3, 4),
        "etp": (1, 2, 4), "dp": (1, 2, 3), "micro": (1, 2, 6), "cp_comm": CP_COMMS,
        "order": ORDERS, "dispatcher": DISPATCHERS, "overlap_tp": (False, True)}
ALL = {**SOME, "tp": (1, 2, 4, 8), "cp": (1, 2, 3, 4, 8), "pp": (1, 2, 4, 8), "vpp": (1, 2, 4),
       "ep": (1, 2, 3, 4, 6, 8, 12), "etp": (1, 2, 3, 4, 6), "dp": (1, 2, 3, 4, 6, 12),
       "micro": (1, 2, 3, 4, 6, 12)}


def is_needless(mapping):
    """A setting differs from the first one to no effect."""
    if mapping.cp == 1 and mapping.cp_comm != CP_COMMS[0]:
        return True
    if mapping.overlap_tp and not mapping.sp:
        return True
    before = ORDERS[:ORDERS.index(mapping.order)]
    return any(strides(mapping._replace(order=order)) == strides(mapping) for order in before)


def tilings(ranks, sizes):
    """(tp, cp, pp, ep, etp) that these ranks can have."""
    for pp in sizes["pp"]:
        for tp, cp in itertools.product(sizes["tp"], sizes["cp"]):
            for ep, etp in itertools.product(sizes["ep"], sizes["etp"]):
                if divides(tp * cp * pp, ranks) and divides(ep * etp * pp, ranks):
                    yield {"tp": tp, "cp": cp, "pp": pp, "ep": ep, "etp": etp}


def legal_mappings(sizes):
    """All of them, those of few ranks first. Dense models where experts would forbid it: tp without
    sp."""
    rest = ("vpp", "micro", "cp_comm", "order", "dispatcher", "overlap_tp")
    for ranks in RANKS:
        for tiling in tilings(ranks, sizes):
            for values in itertools.product(*(sizes[name] for name in rest)):
                mapping = Mapping(ranks, sp=tiling["tp"] > 1, **tiling, **dict(zip(rest, values)))
                if mapping.dp not in sizes["dp"] or is_needless(mapping):
                    continue
                if is_legal(mapping):
                    yield mapping
                dense = mapping._replace(sp=False, model=DENSE)
                wanted = mapping.dispatcher == DISPATCHERS[0] and not mapping.overlap_tp
                if mapping.tp > 1 and wanted and is_legal(dense):
                    yield dense


# What the program computes on any mapping: chosen for a mapping that is there.
FREE = {"routing": tuple(ROUTINGS), "recompute": tuple(RECOMPUTES), "state": tuple(STATES),
        "overlap_ep": (False, True)}


def settings(mapping):
    """What shall be seen beside each other. Without tp there is no sp to be had, without experts no
    routing, and without other ranks nothing to overlap with."""
    sequence = "none" if mapping.tp == 1 else mapping.sp
    routing = "none" if mapping.model.experts == 0 else mapping.routing
    overlap = mapping.overlap_ep if mapping.ep * mapping.etp > 1 else "none"
    return (("sp", sequence), ("routing", routing), ("recompute", mapping.recompute),
            ("state", mapping.state), ("overlap_ep", overlap),
            *((name, getattr(mapping, name)) for name in SOME))


def free_settings(mapping):
    """The same mapping with all that it can have of them. The library's sums are for all ranks."""
    choices = {**FREE}
    if mapping.model.experts == 0:
        choices["routing"] = FREE["routing"][:1]
    if LIBRARY in mapping.more:
        choices["state"] = FREE["state"][:2]
    if mapping.ep * mapping.etp == 1:
        choices["overlap_ep"] = (False,)
    return [mapping._replace(**dict(zip(choices, values)))
            for values in itertools.product(*choices.values())]


def combinations(mapping, count):
    return itertools.combinations(settings(mapping), count)


def price(mapping):
    """Of a run, roughly: oversubscribed ranks pay for each message."""
    messages = (mapping.tp * mapping.cp - 1) * mapping.micro_batches
    return 4 + mapping.ranks * (1 + messages / 16)


def cover(mappings, count, given=()):
    """Few mappings that together, and with given ones, have every combination of `count` settings
    that occurs: always the one with the most new ones for its price."""
    seen = {combination for mapping in given for combination in combinations(mapping, count)}
    bits = {}
    left = []
    for mapping in mappings:
        new = set(combinations(mapping, count)) - seen
        left.append([mapping, sum(1 << bits.setdefault(one, len(bits)) for one in new),
                     price(mapping)])
    chosen = []
    while left := [entry for entry in left if entry[1]]:
        best, new, _ = max(left, key=lambda entry: entry[1].bit_count() / entry[2])
        chosen.append(best)
        for entry in left:
            entry[1] &= ~new
    return chosen


def spread(mappings, given):
    """Each of them with a routing, a recomputation, a way with state and overlap over ep, so that all
    pairs with these are there: always those that bring most new ones, beside what `given` ones have, and of those the
    rarest. Gathering mappings, of which there are few, choose first."""
    seen = {pair for mapping in given for pair in combinations(mapping, 2)}
    times = collections.Counter()
    chosen = []
    for mapping in sorted(mappings, key=lambda one: (one.dispatcher == DISPATCHERS[0], price(one))):
        best = max(free_settings(mapping),
                   key=lambda other: (len(set(combinations(other, 2)) - seen),
                                      -sum(times[getattr(other, name)] for name in FREE)))
        seen.update(combinations(best, 2))
        times.update(getattr(best, name) for name in FREE)
        chosen.append(best)
    return chosen


# Each axis by itself, and each way to go along it.
DP = Mapping(2, micro=3)
TP = Mapping(2, tp=2, sp=True, micro=6)
TP_DENSE = Mapping(2, tp=2, micro=6, model=DENSE)
CP = Mapping(2, cp=2, micro=4)
CP_GATHER = CP._replace(cp_comm="all_gather")
CP_A2A = CP._replace(cp_comm="a2a")
PP = Mapping(2, pp=2, micro=3)
VPP = Mapping(2, pp=2, vpp=2, micro=3)
EP = Mapping(2, ep=2, micro=3)
EP_GATHER = EP._replace(dispatcher="allgather")
ETP = Mapping(2, etp=2, micro=3)
ETP_GATHER = ETP._replace(dispatcher="allgather")
SIMPLE = (DP, DP._replace(ranks=3, micro=2), TP, TP_DENSE, CP, CP_GATHER, CP_A2A, PP, VPP, EP,
          EP_GATHER, ETP, ETP_GATHER)


def budget(rows):
    return f"moe.receive_budget={rows}"


LIBRARY = "parallel.grad_reduce=library"
# What the pairs below do not have: more on a rank than its budget, sums by the MPI library, stages
# of several sizes, other groups of micro-batches, head and embedding apart, and larger sizes.
SPECIAL = (
    Mapping(micro=4, more=(budget(100),)),
    Mapping(3, pp=3, micro=2, more=("parallel.first_stage_layers=2",)),
    Mapping(4, etp=2, ep=2, micro=3, more=(budget(40),)),
    Mapping(4, cp=2, ep=2, micro=3, order=ORDERS[1], more=(budget(17), LIBRARY)),
    Mapping(4, tp=2, sp=True, pp=2, micro=3, more=(LIBRARY,)),
    Mapping(4, pp=4, micro=1, more=("parallel.first_stage_layers=1",
                                    "parallel.last_stage_layers=3")),
    Mapping(4, pp=2, vpp=2, ep=2, micro=3, more=("parallel.layout=E|ttt|ttttt|L",)),
    Mapping(4, tp=2, sp=True, pp=2, vpp=2, micro=1, more=("parallel.vpp_group_size=5",)),
    Mapping(4, tp=4, sp=True, ep=4, micro=4),
    Mapping(4, tp=4, sp=True, micro=6, model=DENSE),
    Mapping(4, pp=4, vpp=2, micro=3, model=UNTIED),
    Mapping(8, tp=4, sp=True, pp=2, etp=2, ep=2, micro=3, model=UNTIED),
    Mapping(6, cp=2, etp=3, ep=2, micro=2),
    Mapping(8, cp=8, ep=8, micro=6),
    Mapping(8, tp=8, sp=True, etp=2, ep=2, micro=6),
    Mapping(8, pp=8, micro=2),
    Mapping(12, ep=12, micro=1),
)


def in_order(chosen):
    return sorted(chosen, key=lambda mapping: mapping.ranks)


def matrix():
    """Those above, and all pairs of settings."""
    given = SIMPLE + SPECIAL
    return in_order((*SIMPLE, *spread((*SPECIAL, *cover(legal_mappings(SOME), 2, given)), SIMPLE)))


def data_and_experts():
    """Without tp, cp and pp: every dp with every ep, micro size and order of the axes on 1 to 8 ranks,
    where a batch of 24 is for all of them. With this seed no rounding in fp32 decides between two
    experts."""
    model = MIXED._replace(batch=24, more=("run.seed=1",))
    sizes = (1, 2, 3, 4, 6, 8, 12, 24)
    chosen = []
    for ranks, ep, order, micro in itertools.product((1, 2, 3, 4, 6, 8), sizes[:6], ORDERS, sizes):
        mapping = Mapping(ranks, ep=ep, order=order, micro=micro, model=model)
        if is_legal(mapping) and not is_needless(mapping):
            chosen.append(mapping)
    return chosen


def third(chosen):
    """What makes a third of them with the simple ones, and has every setting of a mapping. The routing
    is the one for which no rounding in fp32 decides between two experts."""
    return [mapping._replace(routing="plain") for mapping in chosen if mapping not in SIMPLE][2::4]


def long_matrix():
    """All triples of settings."""
    return in_order(spread(cover(legal_mappings(ALL), 3), ()))


def neighbours(mapping):
    """Mappings that differ in one setting, in sizes that may not do at all, or train a model that
    does not suit them."""
    others = {"ranks": RANKS, "sp": (False, True),
              **{name: values for name, values in ALL.items() if name != "dp"},
              "model": [mapping.model._replace(**other) for other in (
                  {"heads": 12, "kv_heads": 6}, {"heads": 6, "kv_heads": 2}, {"ffn": 30},
                  {"length": 36}, {"layers": 10, "more": ("moe.layer_frequency=1",)}, {"experts": 21},
                  {"expert_ffn": 10}, {"experts": 0}, {"batch": 14})]}
    for name in ("tp", "cp", "pp", "vpp", "ep", "etp"):
        others[name] += (3, 5, 16)
    for name, values in others.items():
        for value in values:
            if value != getattr(mapping, name):
                yield mapping._replace(**{name: value})


def illegal_mappings(legal, each):
    """Neighbours of legal mappings that break one rule alone: (rule, mapping), up to `each` of
    every rule, spread over the legal ones."""
    found = {name: [] for name in RULES}
    for mapping in legal:
        if mapping.more:
            continue
        for other in neighbours(mapping):
            fails = broken(other)
            if len(fails) == 1 and other not in found[fails[0]]:
                found[fails[0]].append(other)
    for name, mappings in found.items():
        for mapping in mappings[::max(1, len(mappings) // each)][:each]:
            yield name, mapping


if __name__ == "__main__":
    print(HEAD)
    print(*matrix(), sep="\n")
