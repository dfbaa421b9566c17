#!/usr/bin/env python3
"""What megatron-core's upcycling makes of the weights of a dense MLP (CPU, float64, one process).

usage: make_megatron_upcycling.py OUT_DIR     (writes OUT_DIR/upcycling.json; its "notes" say what is in it)
"""
import argparse
import pathlib
import warnings

import torch

warnings.filterwarnings("ignore")
torch.cuda.current_device = lambda: "cpu"      # megatron-core only asks for the device's name
import megatron.core
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.moe_module_specs import get_moe_module_spec
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.upcycling_utils import upcycle_state_dict
from megatron.core.transformer.transformer_config import TransformerConfig

from make_megatron import write

HIDDEN, FFN, SEED = 3, 8, 77
NOTES = [
    "H hidden, D dense ffn, F expert ffn, E experts; everything is computed in float64, numbers restore it exactly",
    "dense: gate_proj and up_proj [D][H], down_proj [H][D] of an MLP with SwiGLU",
    "a case: settings in Konclave's names, and after upcycle_state_dict gate_proj and up_proj [E][F][H], down_proj"
    " [E][H][F]; router_rows [E]: which row of the new model's router each row is",
]
CASES = [  # num_experts, top_k, ffn_hidden_size, pre_softmax
    (4, 2, 8, False), (3, 1, 8, True), (4, 2, 4, False), (4, 2, 4, True), (4, 4, 4, True), (8, 4, 2, False),
    (8, 4, 2, True), (12, 8, 2, True),
]


class Layer(torch.nn.Module):
    """What upcycling looks for an MLP in."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp


def config(**settings):
    return TransformerConfig(
        num_layers=1, hidden_size=HIDDEN, num_attention_heads=1, add_bias_linear=False, gated_linear_unit=True,
        activation_func=torch.nn.functional.silu, use_cpu_initialization=True, params_dtype=torch.float64, **settings)


def dense_layer():
    torch.manual_seed(SEED)
    layer = Layer(MLP(config(ffn_hidden_size=FFN), get_gpt_layer_local_spec().submodules.mlp.submodules))
    for weight in layer.parameters():
        weight.data = torch.randint(-9999, 10000, weight.shape).double() / 10000
    return layer


def moe_layer(num_experts, top_k, ffn, pre_softmax):
    spec = get_moe_module_spec(use_te=False, num_experts=num_experts, moe_grouped_gemm=False)
    return Layer(MoELayer(config(
        num_moe_experts=num_experts, moe_router_topk=top_k, moe_ffn_hidden_size=ffn,
        moe_router_pre_softmax=pre_softmax, moe_token_dispatcher_type="allgather"), spec.submodules))


def single(case, dense):
    num_experts, top_k, ffn, pre_softmax = case
    moe = moe_layer(*case)
    rows = moe.mlp.router.weight.tolist()
    assert len({tuple(row) for row in rows}) == num_experts
    made = upcycle_state_dict([moe], [dense])["model"]
    assert set(made) == set(moe.state_dict())
    moe.load_state_dict(made)
    first = [e.linear_fc1.weight for e in moe.mlp.experts.local_experts]
    return {
        "settings": {"num_experts": num_experts, "top_k": top_k, "ffn_hidden_size": ffn, "pre_softmax": pre_softmax},
        "router_rows": [rows.index(row) for row in made["mlp.router.weight"].tolist()],
        "gate_proj": [w[:ffn].tolist() for w in first], "up_proj": [w[ffn:].tolist() for w in first],
        "down_proj": [e.linear_fc2.weight.tolist() for e in moe.mlp.experts.local_experts],
    }


def everything():
    dense = dense_layer()
    first = dense.mlp.linear_fc1.weight
    return {
        "notes": NOTES,
        "versions": {"megatron_core": megatron.core.__version__, "torch": torch.__version__},
        "dense": {"gate_proj": first[:FFN].tolist(), "up_proj": first[FFN:].tolist(),
                  "down_proj": dense.mlp.linear_fc2.weight.tolist()},
        "cases": [single(case, dense) for case in CASES],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    out_dir = parser.parse_args().out_dir
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    data = everything()
    torch.distributed.destroy_process_group()
    write(data, out_dir, "upcycling")


if __name__ == "__main__":
    main()
