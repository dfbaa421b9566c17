#!/usr/bin/env python3
"""What megatron-core's whole router does in training: Sinkhorn, capacities, losses, the expert bias (CPU, float32).

usage: make_megatron_router.py OUT_DIR     (writes OUT_DIR/router.json; its "notes" say what is in it)
"""
import argparse
import pathlib
import warnings

import torch

warnings.filterwarnings("ignore")
torch.cuda.current_device = lambda: "cpu"      # megatron-core only asks for the device's name
import megatron.core
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.transformer_config import TransformerConfig

moe_utils.te_general_gemm = None              # which it looks for without Transformer Engine too

from make_megatron import leaf, plain, random, write

SEQUENCES, LENGTH, EXPERTS, HIDDEN = 4, 6, 8, 6
TOKENS = SEQUENCES * LENGTH
MARGIN = 1e-3
SEED, STEP_SEED, STEPS = 112, 601, 4
NOTES = [
    "T tokens of sequences of equal length, one after the other, E experts, H hidden; everything is computed in float32"
    " by TopKRouter, numbers have 9 significant digits",
    "x [T][H], weight [E][H], grad_probs [T][E] are the inputs of all cases; settings have Konclave's names, what is"
    " not given is off; window is the number of sequences that megatron-core got as a micro-batch",
    "map [T][E]: 1 where the expert gets the token; probs [T][E]: zero where map is 0, and where the token is padding",
    "losses: coefficient included, mean over the micro-batches",
    "dx [T][H], dweight [E][H]: gradients of sum(probs * grad_probs) + losses; without training only the choice counts",
    "plan [T][E]: what sinkhorn() makes of the logits of each micro-batch",
    "walks: a router over several steps with x [T][H] each and micro-batches of window sequences; load [E]: the K"
    " largest scores of all tokens counted; chosen [E]: what was chosen, with the bias; bias [E]: after"
    " get_updated_expert_bias; global_aux_loss: switch_load_balancing_loss_func of each micro-batch's scores with the"
    " load of the step before (at first an even one) and the tokens of the whole step",
    "running: the same with megatron-core's own global_aux_loss, of the counts of a step so far; its tracker is reset"
    " after each step; losses as in cases",
    "torch.topk leaves the order of equal values open, and with it which tokens a capacity by position keeps and which"
    " ones pad: here the lowest index comes first. Values that are not equal differ by 0.1 % at least where one is"
    " taken and the next is not, so that rounding decides nothing",
]
SINKHORN, LOSSES = ["sinkhorn"], ("aux_loss", "seq_aux_loss", "global_aux_loss")
CASES = [
    {"top_k": 1, "window": 4, "balancing": SINKHORN},
    {"top_k": 2, "window": 4, "balancing": SINKHORN},
    {"top_k": 3, "window": 2, "balancing": SINKHORN, "z_loss_coefficient": 0.01},
    {"top_k": 1, "window": 4, "balancing": SINKHORN, "training": False},
    {"top_k": 2, "window": 4, "balancing": SINKHORN, "training": False},
    {"top_k": 2, "window": 1, "balancing": SINKHORN},
    {"top_k": 1, "window": 4, "pre_softmax": True, "capacity_factor": 0.8},
    {"top_k": 2, "window": 2, "capacity_factor": 0.7},
    {"top_k": 2, "window": 1, "score_function": "sigmoid", "capacity_factor": 1.0, "pad_to_capacity": True},
    {"top_k": 3, "window": 1, "pre_softmax": True, "capacity_factor": 1.1, "pad_to_capacity": True},
    {"top_k": 2, "window": 1, "capacity_factor": 0.7, "drop_policy": "position"},
    {"top_k": 3, "window": 1, "score_function": "sigmoid", "scaling_factor": 2.5, "capacity_factor": 1.2,
     "drop_policy": "position", "pad_to_capacity": True},
    {"top_k": 4, "window": 2, "capacity_factor": 3.0, "pad_to_capacity": True},
    {"top_k": 2, "window": 4, "balancing": ["seq_aux_loss"], "aux_loss_coefficients": [0.3]},
    {"top_k": 1, "window": 2, "score_function": "sigmoid", "balancing": ["seq_aux_loss"],
     "aux_loss_coefficients": [0.4]},
    {"top_k": 4, "window": 2, "score_function": "sigmoid", "num_groups": 4, "group_top_k": 2,
     "balancing": ["seq_aux_loss", "aux_loss"], "aux_loss_coefficients": [0.2, 0.5], "z_loss_coefficient": 0.02},
    {"top_k": 2, "window": 1, "capacity_factor": 0.8, "balancing": ["aux_loss", "seq_aux_loss"],
     "aux_loss_coefficients": [0.4, 0.1], "z_loss_coefficient": 0.01},
]
WALKS = [
    {"top_k": 2, "window": 2, "balancing": ["global_aux_loss"], "aux_loss_coefficients": [0.6]},
    {"top_k": 3, "window": 2, "score_function": "sigmoid", "expert_bias": True, "expert_bias_update_rate": 0.04,
     "balancing": ["global_aux_loss"], "aux_loss_coefficients": [0.3]},
]
RUNNING = [
    {"top_k": 2, "window": 1, "balancing": ["global_aux_loss"], "aux_loss_coefficients": [0.6],
     "global_aux_counts": "running"},
    {"top_k": 3, "window": 2, "score_function": "sigmoid", "balancing": ["aux_loss", "global_aux_loss"],
     "aux_loss_coefficients": [0.2, 0.3], "global_aux_counts": "running"},
]


def steady_topk(values, k, dim=-1, sorted=True):
    """torch.topk with the lowest index first among equal values; refuses values that are nearly equal."""
    ordered, indices = torch.sort(values, dim=dim, descending=True, stable=True)
    if k < values.shape[dim]:
        last, next_one = ordered.select(dim, k - 1), ordered.select(dim, k)
        apart = (last == next_one) | (last - next_one > MARGIN * last.abs())
        assert apart.all(), "a choice that rounding could change: take another seed"
    return ordered.narrow(dim, 0, k), indices.narrow(dim, 0, k)


def config_of(case):
    """Konclave's settings in megatron-core's names."""
    kinds = case.get("balancing", ["none"])
    # Its own global_aux_loss is the running one; the other is made by walk().
    running = case.get("global_aux_counts") == "running"
    sinkhorn = kinds == SINKHORN
    losses = [k for k in kinds if k in LOSSES and (running or k != "global_aux_loss")]
    coefficients = dict(zip(kinds, case.get("aux_loss_coefficients", [])))
    return TransformerConfig(
        num_layers=1, hidden_size=HIDDEN, num_attention_heads=1, num_moe_experts=EXPERTS, add_bias_linear=False,
        moe_router_topk=case["top_k"], moe_router_score_function=case.get("score_function", "softmax"),
        moe_router_pre_softmax=case.get("pre_softmax", False), moe_router_num_groups=case.get("num_groups"),
        moe_router_group_topk=case.get("group_top_k"), moe_router_topk_scaling_factor=case.get("scaling_factor"),
        moe_router_load_balancing_type="sinkhorn" if sinkhorn else losses or "none",
        moe_aux_loss_coeff=[coefficients[kind] for kind in losses] if losses else 0.0,
        moe_z_loss_coeff=case.get("z_loss_coefficient"), moe_expert_capacity_factor=case.get("capacity_factor"),
        moe_pad_expert_input_to_capacity=case.get("pad_to_capacity", False),
        moe_token_drop_policy=case.get("drop_policy", "probs"), moe_token_dispatcher_type="alltoall",
        moe_router_enable_expert_bias=case.get("expert_bias", False),
        moe_router_bias_update_rate=case.get("expert_bias_update_rate", 0))


def router_of(case, weight):
    router = TopKRouter(config_of(case), ProcessGroupCollection.use_mpu_process_groups())
    router.set_layer_number(1)
    router.weight.data = weight.clone()
    return router.train(case.get("training", True))


def micro_batches(case, x):
    """Tokens [T][..] as megatron-core wants them: (positions, sequences, ..) of each micro-batch."""
    return x.reshape(-1, case["window"], LENGTH, x.shape[-1]).transpose(1, 2).contiguous()


def in_sequences(case, parts):
    """The inverse, of results (positions * sequences, ..)."""
    return torch.cat([p.reshape(LENGTH, case["window"], -1).transpose(0, 1).reshape(-1, p.shape[-1]) for p in parts])


def run(case, router, x):
    """probs and map of all micro-batches; attached losses weigh as in a step of these micro-batches."""
    parts = micro_batches(case, x)
    moe_utils.MoEAuxLossAutoScaler.set_loss_scale(torch.tensor(1 / len(parts)))
    results = [router(part) for part in parts]
    return in_sequences(case, [r[0] for r in results]), in_sequences(case, [r[1] for r in results])


def losses_of(case):
    """What the router has noted for the log since the last call, divided by coefficients and of all micro-batches."""
    noted = {name: entry["values"].item() for name, entry in moe_utils.get_moe_layer_wise_logging_tracker().items()}
    moe_utils.clear_aux_losses_tracker()
    coefficients = dict(zip(case.get("balancing", []), case.get("aux_loss_coefficients", [])))
    coefficients["z_loss"] = case.get("z_loss_coefficient", 0)
    names = {"aux_loss": "load_balancing_loss", "seq_aux_loss": "seq_load_balancing_loss",
             "global_aux_loss": "global_load_balancing_loss", "z_loss": "z_loss"}
    return {ours: coefficients[ours] * noted[theirs] * case["window"] / SEQUENCES
            for ours, theirs in names.items() if coefficients.get(ours)}


def single(case, x, weight, grad_probs):
    router, x = router_of(case, weight), leaf(x)
    probs, chosen = run(case, router, x)
    (probs * grad_probs).sum().backward()
    found = {"settings": case, "losses": losses_of(case), "map": plain(chosen), "probs": plain(probs),
             "dx": plain(x.grad), "dweight": plain(router.weight.grad)}
    if case.get("balancing") == SINKHORN and router.training:
        plans = [moe_utils.sinkhorn(router.gating(part).reshape(-1, EXPERTS)) for part in micro_batches(case, x)]
        found["plan"] = plain(in_sequences(case, plans))
    return found


def walk(case, inputs, weight, grad_probs):
    router, top_k, steps = router_of(case, weight), case["top_k"], []
    load = torch.full((EXPERTS,), TOKENS * top_k / EXPERTS)
    for x in map(leaf, inputs):
        router.weight.grad = None
        probs, chosen = run(case, router, x)
        loss, counted = 0, torch.zeros(EXPERTS, dtype=torch.int64)
        for part in micro_batches(case, x):
            of_scores, scores = moe_utils.compute_routing_scores_for_aux_loss(
                router.gating(part).reshape(-1, EXPERTS), top_k, router.score_function)
            counted += of_scores.sum(0)
            loss = loss + moe_utils.switch_load_balancing_loss_func(
                scores, load, TOKENS, top_k, EXPERTS, case["aux_loss_coefficients"][0])
        ((probs * grad_probs).sum() + loss).backward()
        load = counted
        steps.append({"global_aux_loss": plain(loss), "map": plain(chosen), "probs": plain(probs), "dx": plain(x.grad),
                      "dweight": plain(router.weight.grad), "load": plain(load), "chosen": plain(chosen.sum(0))})
        if router.enable_expert_bias:
            router.expert_bias.copy_(moe_utils.get_updated_expert_bias(
                router.local_tokens_per_expert, router.expert_bias, router.config.moe_router_bias_update_rate))
            assert router.local_tokens_per_expert.tolist() == chosen.sum(0).tolist()
            router.local_tokens_per_expert.zero_()
            steps[-1]["bias"] = plain(router.expert_bias)
    return {"settings": case, "steps": steps}


def running(case, inputs, weight, grad_probs):
    router, steps = router_of(case, weight), []
    for x in map(leaf, inputs):
        router.weight.grad = None
        probs, chosen = run(case, router, x)
        (probs * grad_probs).sum().backward()
        steps.append({"losses": losses_of(case), "map": plain(chosen), "probs": plain(probs), "dx": plain(x.grad),
                      "dweight": plain(router.weight.grad)})
        router.reset_global_aux_loss_tracker()
    return {"settings": case, "steps": steps}


def everything():
    x, weight = random(SEED, TOKENS, HIDDEN), random(SEED + 1, EXPERTS, HIDDEN, scale=0.5)
    grad_probs = random(SEED + 2, TOKENS, EXPERTS)
    inputs = [random(STEP_SEED + step, TOKENS, HIDDEN) + 0.5 for step in range(STEPS)]
    return {
        "notes": NOTES,
        "versions": {"megatron_core": megatron.core.__version__, "torch": torch.__version__},
        "sequence_length": LENGTH,
        "x": plain(x), "weight": plain(weight), "grad_probs": plain(grad_probs), "step_x": [plain(x) for x in inputs],
        "cases": [single(case, x, weight, grad_probs) for case in CASES],
        "walks": [walk(case, inputs, weight, grad_probs) for case in WALKS],
        "running": [running(case, inputs[:2], weight, grad_probs) for case in RUNNING],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    out_dir = parser.parse_args().out_dir
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.topk = steady_topk
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    data = everything()
    torch.distributed.destroy_process_group()
    write(data, out_dir, "router")


if __name__ == "__main__":
    main()
