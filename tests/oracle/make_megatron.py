#!/usr/bin/env python3
"""Router, auxiliary-loss, z-loss and permutation vectors from megatron-core (CPU, float32, one process).

usage: make_megatron.py OUT_DIR        (writes OUT_DIR/routing.json and rules.json; "notes" state shapes and conventions)
"""
import argparse
import itertools
import json
import pathlib
import warnings

import torch

warnings.filterwarnings("ignore")
torch.cuda.current_device = lambda: "cpu"      # megatron-core only asks for the device's name
import megatron.core
from megatron.core.transformer.moe import moe_utils

TOKENS, EXPERTS, HIDDEN, WINDOWS = 24, 8, 4, 3
TOP_KS = (1, 2, 4)
AUX_COEFFICIENT, Z_COEFFICIENT = 0.02, 1e-3
NOTES = [
    "T tokens, E experts, H hidden, K = top_k; [..] gives the shape; everything is computed in float32",
    "numbers are printed with 9 significant digits, which restores the float32 exactly; inputs are exact float32",
    "inputs shared by all cases: logits [T][E], grad_probs [T][E], tokens [T][H]",
    "map [T][E]: 1 where the token chose the expert; probs [T][E]: zero where map is 0",
    "topk: pre_softmax false = softmax over the K chosen logits, true = softmax over all E and no renormalisation;"
    " grad_logits [T][E] = gradient of sum(probs * grad_probs) with respect to logits",
    "aux_loss: scores = softmax over all E, map = top-K of the scores, and for a window of N tokens"
    " loss = coefficient * E / (K * N^2) * sum_e (sum_t scores[t][e]) * (sum_t map[t][e]); counts carry no gradient",
    "aux_loss: windows are equal contiguous runs of tokens; loss = mean of window_losses [windows];"
    " tokens_per_expert [windows][E]; grad_logits [T][E] = gradient of loss",
    "z_loss: loss = coefficient * mean over tokens of logsumexp(logits)^2; grad_logits [T][E] = gradient of loss",
    "permute: rows in expert order, within an expert in token order; map and probs are those of topk with pre_softmax"
    " true; sorted_indices [T*K] = token of each row; permuted [T*K][H] = tokens[sorted_indices];"
    " permuted_probs [T*K] = prob of each row",
    "permute: expert_out [T*K][H] is an input in permuted row order; unpermuted [T][H] = per token the sum of its"
    " rows; unpermuted_weighted [T][H] = the same with each row times its prob",
]

RULE_NOTES = [
    "T tokens, E experts, K = top_k; everything is computed in float32, numbers have 9 significant digits",
    "small and large hold inputs: logits [T][E], grad_probs [T][E], bias [E]; a case names its inputs",
    "experts [T][K]: the chosen ones in ascending order, probs [T][K]: their probabilities; bias is true where the bias"
    " was added to the scores for the choice; num_groups 0: no groups; grad_logits [T][E] = gradient of"
    " sum(probs * grad_probs) with respect to logits",
    "aux_loss: of the first top_k sigmoid scores over the sum of all, over all tokens: tokens_per_expert [E], loss and"
    " grad_logits as in routing.json, of the small inputs",
]
RULES = [  # inputs, top_k, score function, softmax before top-k, (groups, groups chosen), scaling, bias
    ("small", 1, "sigmoid", False, (0, 0), None, False),
    ("small", 2, "sigmoid", False, (0, 0), 2.5, False),
    ("small", 4, "sigmoid", False, (0, 0), None, True),
    ("small", 2, "sigmoid", False, (2, 1), None, False),
    ("small", 4, "sigmoid", False, (4, 2), 1.5, True),
    ("small", 2, "softmax", False, (4, 2), None, False),
    ("small", 4, "softmax", False, (4, 2), 0.5, False),
    ("small", 2, "softmax", True, (2, 1), 2.5, False),
    ("small", 1, "softmax", True, (0, 0), 3.0, False),
    ("large", 8, "sigmoid", False, (8, 4), 2.5, True),
    ("large", 8, "softmax", False, (0, 0), None, False),
]


def random(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(x):
    """A tensor as nested lists: integers, or numbers of 9 significant digits."""
    if x.dtype in (torch.bool, torch.int32, torch.int64):
        return x.int().tolist()
    return json.loads(json.dumps(x.detach().double().tolist()), parse_float=lambda s: float("%.9g" % float(s)))


def leaf(logits):
    return logits.clone().requires_grad_()


def topk_case(logits, grad_probs, top_k, pre_softmax):
    logits = leaf(logits)
    probs, chosen = moe_utils.topk_routing_with_score_function(logits, top_k, use_pre_softmax=pre_softmax)
    (probs * grad_probs).sum().backward()
    return {"top_k": top_k, "pre_softmax": pre_softmax, "probs": plain(probs), "map": plain(chosen),
            "grad_logits": plain(logits.grad)}


def aux_loss_case(logits, top_k, windows):
    logits = leaf(logits)
    losses, counts = [], []
    for window in logits.chunk(windows):
        chosen, scores = moe_utils.compute_routing_scores_for_aux_loss(window, top_k, "softmax")
        counts.append(chosen.sum(0))
        losses.append(moe_utils.switch_load_balancing_loss_func(
            scores, counts[-1], window.shape[0], top_k, EXPERTS, AUX_COEFFICIENT))
    loss = torch.stack(losses).mean()
    loss.backward()
    return {"top_k": top_k, "windows": windows, "coefficient": AUX_COEFFICIENT,
            "tokens_per_expert": plain(torch.stack(counts)), "window_losses": plain(torch.stack(losses)),
            "loss": plain(loss), "grad_logits": plain(logits.grad)}


def z_loss_case(logits):
    logits = leaf(logits)
    loss = moe_utils.z_loss_func(logits, Z_COEFFICIENT)
    loss.backward()
    return {"coefficient": Z_COEFFICIENT, "loss": plain(loss), "grad_logits": plain(logits.grad)}


def permute_case(logits, tokens, top_k):
    probs, chosen = moe_utils.topk_routing_with_score_function(logits, top_k, use_pre_softmax=True)
    rows, row_probs, indices = moe_utils.permute(tokens, chosen, probs, num_out_tokens=TOKENS * top_k)
    expert_out = random(10 + top_k, *rows.shape)
    summed = moe_utils.unpermute(expert_out, indices, tokens.shape)
    weighted = moe_utils.unpermute(expert_out, indices, tokens.shape, probs=probs, routing_map=chosen)
    return {"top_k": top_k, "probs": plain(probs), "map": plain(chosen), "sorted_indices": plain(indices),
            "permuted": plain(rows), "permuted_probs": plain(row_probs), "expert_out": plain(expert_out),
            "unpermuted": plain(summed), "unpermuted_weighted": plain(weighted)}


def routing():
    logits, grad_probs = random(1, TOKENS, EXPERTS, scale=2.0), random(3, TOKENS, EXPERTS)
    tokens = random(9, TOKENS, HIDDEN)
    return {
        "notes": NOTES,
        "versions": {"megatron_core": megatron.core.__version__, "torch": torch.__version__},
        "num_tokens": TOKENS, "num_experts": EXPERTS, "hidden": HIDDEN,
        "logits": plain(logits), "grad_probs": plain(grad_probs), "tokens": plain(tokens),
        "topk": [topk_case(logits, grad_probs, k, pre) for k, pre in itertools.product(TOP_KS, (False, True))],
        "aux_loss": [aux_loss_case(logits, k, n) for k, n in itertools.product(TOP_KS, (1, WINDOWS))],
        "z_loss": [z_loss_case(logits)],
        "permute": [permute_case(logits, tokens, k) for k in TOP_KS],
    }


def rule_inputs(seed, tokens, experts):
    return {"logits": random(seed, tokens, experts, scale=2.0), "grad_probs": random(seed + 1, tokens, experts),
            "bias": random(seed + 2, experts, scale=0.3)}


def rule_case(inputs, name, top_k, score, pre, groups, scaling, bias):
    of = inputs[name]
    logits = leaf(of["logits"])
    probs, chosen = moe_utils.topk_routing_with_score_function(
        logits, top_k, use_pre_softmax=pre, num_groups=groups[0] or None, group_topk=groups[1] or None,
        scaling_factor=scaling, score_function=score, expert_bias=of["bias"] if bias else None)
    (probs * of["grad_probs"]).sum().backward()
    experts = chosen.nonzero()[:, 1].reshape(-1, top_k)
    return {"inputs": name, "top_k": top_k, "score_function": score, "pre_softmax": pre, "num_groups": groups[0],
            "group_top_k": groups[1], "scaling_factor": scaling or 1.0, "bias": bias, "experts": plain(experts),
            "probs": plain(probs.gather(1, experts)), "grad_logits": plain(logits.grad)}


def sigmoid_aux_case(logits, top_k):
    logits = leaf(logits)
    chosen, scores = moe_utils.compute_routing_scores_for_aux_loss(logits, top_k, "sigmoid")
    loss = moe_utils.switch_load_balancing_loss_func(
        scores, chosen.sum(0), logits.shape[0], top_k, logits.shape[1], AUX_COEFFICIENT)
    loss.backward()
    return {"top_k": top_k, "coefficient": AUX_COEFFICIENT, "tokens_per_expert": plain(chosen.sum(0)),
            "loss": plain(loss), "grad_logits": plain(logits.grad)}


def rules():
    inputs = {"small": rule_inputs(21, 12, 8), "large": rule_inputs(31, 3, 256)}
    return {
        "notes": RULE_NOTES,
        "versions": {"megatron_core": megatron.core.__version__, "torch": torch.__version__},
        **{name: {key: plain(value) for key, value in of.items()} for name, of in inputs.items()},
        "rules": [rule_case(inputs, *case) for case in RULES],
        "aux_loss": [sigmoid_aux_case(inputs["small"]["logits"], k) for k in TOP_KS],
    }


def as_text(data):
    """JSON with one line per list element of the top level."""
    def value(v):
        if not isinstance(v, list):
            return json.dumps(v)
        return "[\n" + ",\n".join(json.dumps(x, separators=(",", ":")) for x in v) + "]"
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {value(v)}" for k, v in data.items()) + "\n}\n"


def write(data, out_dir, name):
    """Writes OUT_DIR/NAME.json and says what is in it."""
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"{name}.json"
    path.write_text(as_text(data))
    assert json.loads(path.read_text()) == data
    print(path, path.stat().st_size, {k: len(v) for k, v in data.items() if isinstance(v, list)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    out_dir = parser.parse_args().out_dir
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, data in (("routing", routing()), ("rules", rules())):
        write(data, out_dir, name)


if __name__ == "__main__":
    main()
