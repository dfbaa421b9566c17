#!/usr/bin/env python3
"""Correctness oracle from Hugging Face transformers (CPU, one thread).

usage: make_transformers.py OUT_DIR [MODEL ...]     (default: every model of CASES)

Writes one folder OUT_DIR/<model>/ per model; README.md lists its files and conventions.  Every run checks that
  * the tensors under Konclave's names have the names and shapes that the deck ("config" of oracle.json) implies,
  * each tensor of the hub checkpoint is used exactly once by the name mapping, with equal values,
  * the checkpoint folders load back to the same weights,
  * no top-k choice of any step is nearer than MIN_MARGIN to a tie,
  * a scaled rotary embedding has frequencies in all three regimes (kept, blended, divided).
"""
import argparse
import collections
import contextlib
import copy
import dataclasses
import json
import math
import pathlib
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, MixtralConfig,
                          MixtralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM,
                          Qwen3MoeConfig, Qwen3MoeForCausalLM)

STEPS, BATCH, SEQUENCE = 5, 2, 24
LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0
MIN_MARGIN = 5e-5
DTYPES = {"f32": torch.float32, "f64": torch.float64}
COMMON = dict(pad_token_id=None, bos_token_id=None, eos_token_id=None, use_cache=False)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model.  `seed` fixes weights and inputs; for MoE it is picked to satisfy MIN_MARGIN."""
    model: type
    config: transformers.PreTrainedConfig
    seed: int
    dtypes: tuple = ("f64",)
    checkpoint: bool = False    # keep the hub checkpoint as hf/
    sharded: bool = False       # keep a bfloat16 copy in two shards as hf_sharded/


CASES = {
    # every layer MoE, top-2 of 8, softmax over the chosen logits; head_dim 12 != 32 / 4
    "mixtral": Case(MixtralForCausalLM, MixtralConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
        intermediate_size=12, num_local_experts=8, num_experts_per_tok=2, output_router_logits=False,
        sliding_window=None, max_position_embeddings=128, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        tie_word_embeddings=False, **COMMON), seed=22, dtypes=("f32", "f64"), checkpoint=True, sharded=True),
    # dense, llama3 rotary scaling: of 6 frequencies 2 are kept, 1 blended, 3 divided
    "llama": Case(LlamaForCausalLM, LlamaConfig(
        vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
        intermediate_size=32, max_position_embeddings=512, tie_word_embeddings=False,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 80},
        **COMMON), seed=2, dtypes=("f32", "f64"), checkpoint=True),
    # tied embeddings, linear rotary scaling
    "llama_tied": Case(LlamaForCausalLM, LlamaConfig(
        vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=512, tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 1e3, "factor": 4.0}, **COMMON),
        seed=3, checkpoint=True),
    # YaRN, attention factor not given: 0.1 ln(factor) + 1
    "llama_yarn": Case(LlamaForCausalLM, LlamaConfig(
        vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=32, max_position_embeddings=4096, tie_word_embeddings=False,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e3, "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0,
                         "original_max_position_embeddings": 1024},
        **COMMON), seed=4),
    # dense, explicit head_dim 8 != 24 / 4, no sliding window
    "mistral": Case(MistralForCausalLM, MistralConfig(
        vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=32, sliding_window=None, max_position_embeddings=128, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, **COMMON),
        seed=5, dtypes=("f32", "f64"), checkpoint=True),
    # dense, biases on q, k and v; 3 heads on 1 key-value head
    "qwen2": Case(Qwen2ForCausalLM, Qwen2Config(
        vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        intermediate_size=32, max_position_embeddings=128, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **COMMON), seed=6),
    # layer 0 dense, layers 1-2 MoE with a gated shared expert; biases on q, k and v; softmax over all experts, top-2 of 6
    "qwen2_moe": Case(Qwen2MoeForCausalLM, Qwen2MoeConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, moe_intermediate_size=6, shared_expert_intermediate_size=10, num_experts=6,
        num_experts_per_tok=2, norm_topk_prob=False, mlp_only_layers=[0], output_router_logits=False,
        max_position_embeddings=128, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, **COMMON),
        seed=32, dtypes=("f32", "f64"), checkpoint=True),
    # layer 0 dense, layers 1-2 MoE; norms on q and k; top-4 of 8, renormalised (= softmax over the chosen logits)
    "qwen3_moe": Case(Qwen3MoeForCausalLM, Qwen3MoeConfig(
        vocab_size=64, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=40, moe_intermediate_size=8, num_experts=8, num_experts_per_tok=4, norm_topk_prob=True,
        mlp_only_layers=[0], output_router_logits=False, max_position_embeddings=128, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **COMMON), seed=21),
    # softmax over all experts, top-3 of 6, not renormalised
    "qwen3_moe_pre_softmax": Case(Qwen3MoeForCausalLM, Qwen3MoeConfig(
        vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=40, moe_intermediate_size=8, num_experts=6, num_experts_per_tok=3, norm_topk_prob=False,
        mlp_only_layers=[], output_router_logits=False, max_position_embeddings=128, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, **COMMON), seed=8),
}


# ---- models ----------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def float32_is_float64():
    """transformers up-casts norms, softmax, rotary angles and the loss 'to float32'; make those casts float64."""
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved


def randomize(model, seed):
    """The library starts norms at 1, biases at 0 and routers nearly uniform: widen them so that mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            value = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.copy_(1 + 0.16 * value)
            elif name.endswith(("mlp.gate.weight", "shared_expert_gate.weight")):
                p.copy_(0.3 * value)
            else:
                p.copy_(0.08 * value)


def build(case, dtype):
    """The model with its initial weights: the same float32 values in either precision."""
    config = copy.deepcopy(case.config)
    config._attn_implementation = config._experts_implementation = "eager"
    model = case.model(config)
    randomize(model, 1000 + case.seed)
    if dtype == "f64":
        model.double()
        with float32_is_float64():
            model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.train()


def make_inputs(case):
    generator = torch.Generator().manual_seed(2000 + case.seed)
    return torch.randint(0, case.config.vocab_size, (STEPS, BATCH, SEQUENCE), generator=generator)


# ---- Konclave's terms ------------------------------------------------------------------------------------------------

def rope_terms(config):
    """(rope_theta, rope_scaling or None) of the deck."""
    scaling = dict(config.rope_parameters)
    theta, kind = scaling.pop("rope_theta"), scaling.pop("rope_type")
    return theta, None if kind == "default" else {"type": kind, **scaling}


def moe_terms(model):
    """The deck's moe section, or None for a dense model."""
    config = model.config
    frequency = [int(hasattr(layer.mlp, "gate")) for layer in model.model.layers]
    if not any(frequency):
        return None
    return {"num_experts": config.num_experts, "top_k": config.num_experts_per_tok,
            "ffn_hidden_size": getattr(config, "moe_intermediate_size", config.intermediate_size),
            "layer_frequency": frequency, "pre_softmax": not getattr(config, "norm_topk_prob", True),
            "shared_ffn_hidden_size": getattr(config, "shared_expert_intermediate_size", 0),
            "shared_gate": hasattr(config, "shared_expert_intermediate_size")}


def deck_config(model):
    """The model's configuration in the terms of a Konclave deck."""
    config = model.config
    theta, scaling = rope_terms(config)
    attention = model.model.layers[0].self_attn
    return {"vocab_size": config.vocab_size, "sequence_length": SEQUENCE, "hidden_size": config.hidden_size,
            "num_layers": config.num_hidden_layers, "num_heads": config.num_attention_heads,
            "num_kv_heads": config.num_key_value_heads, "head_dim": attention.head_dim,
            "ffn_hidden_size": config.intermediate_size, "norm_eps": config.rms_norm_eps, "rope_theta": theta,
            "rope_scaling": scaling, "qk_norm": hasattr(attention, "q_norm"),
            "qkv_bias": attention.q_proj.bias is not None, "tie_embeddings": config.tie_word_embeddings,
            "moe": moe_terms(model)}


def konclave_state(named):
    """Tensors by transformers' in-memory parameter name -> contiguous tensors by Konclave's name."""
    out = {}
    for name, t in named:
        if name.endswith("mlp.experts.gate_up_proj"):
            prefix = name.replace("mlp.experts.gate_up_proj", "moe.experts.")
            gate, up = t.detach().chunk(2, dim=1)
            out[prefix + "gate_proj.weight"], out[prefix + "up_proj.weight"] = gate.contiguous(), up.contiguous()
            continue
        name = name.replace("mlp.experts.down_proj", "moe.experts.down_proj.weight")
        name = name.replace("mlp.shared_expert_gate.", "moe.shared_experts.gate.")
        name = name.replace("mlp.shared_expert.", "moe.shared_experts.")
        out[name.replace("mlp.gate.weight", "moe.router.weight")] = t.detach().clone()
    return out


def attention_shapes(deck, layer):
    h, d = deck["hidden_size"], deck["head_dim"]
    q, kv = deck["num_heads"] * d, deck["num_kv_heads"] * d
    shapes = {"q_proj.weight": (q, h), "k_proj.weight": (kv, h), "v_proj.weight": (kv, h), "o_proj.weight": (h, q)}
    if deck["qkv_bias"]:
        shapes.update({"q_proj.bias": (q,), "k_proj.bias": (kv,), "v_proj.bias": (kv,)})
    if deck["qk_norm"]:
        shapes.update({"q_norm.weight": (d,), "k_norm.weight": (d,)})
    return {f"{layer}.self_attn.{name}": shape for name, shape in shapes.items()}


def mlp_shapes(deck, layer, is_moe):
    h = deck["hidden_size"]
    if not is_moe:
        f = deck["ffn_hidden_size"]
        return {f"{layer}.mlp.gate_proj.weight": (f, h), f"{layer}.mlp.up_proj.weight": (f, h),
                f"{layer}.mlp.down_proj.weight": (h, f)}
    e, f = deck["moe"]["num_experts"], deck["moe"]["ffn_hidden_size"]
    experts, shared, s = f"{layer}.moe.experts", f"{layer}.moe.shared_experts", deck["moe"]["shared_ffn_hidden_size"]
    shapes = {f"{layer}.moe.router.weight": (e, h), f"{experts}.gate_proj.weight": (e, f, h),
              f"{experts}.up_proj.weight": (e, f, h), f"{experts}.down_proj.weight": (e, h, f)}
    if s:
        shapes |= {f"{shared}.gate_proj.weight": (s, h), f"{shared}.up_proj.weight": (s, h),
                   f"{shared}.down_proj.weight": (h, s), f"{shared}.gate.weight": (1, h)}
    return shapes


def konclave_shapes(deck):
    """Every parameter name and shape that the deck implies."""
    v, h = deck["vocab_size"], deck["hidden_size"]
    shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    if not deck["tie_embeddings"]:
        shapes["lm_head.weight"] = (v, h)
    frequency = deck["moe"]["layer_frequency"] if deck["moe"] else [0] * deck["num_layers"]
    for i, is_moe in enumerate(frequency):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (h,)
        shapes.update(attention_shapes(deck, layer) | mlp_shapes(deck, layer, is_moe))
    return shapes


def hub_names(name, model_type, experts):
    """The hub checkpoint's tensors that make up one Konclave tensor, in expert order."""
    mixtral = model_type == "mixtral"
    block = "block_sparse_moe" if mixtral else "mlp"
    if ".moe.router." in name:
        return [name.replace("moe.router", block + ".gate")]
    if ".moe.experts." not in name:
        name = name.replace("moe.shared_experts.gate.", "mlp.shared_expert_gate.")
        return [name.replace("moe.shared_experts.", "mlp.shared_expert.")]
    head, projection = name.removesuffix(".weight").split(".moe.experts.")
    if mixtral:
        projection = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}[projection]
    return [f"{head}.{block}.experts.{e}.{projection}.weight" for e in range(experts)]


# ---- checks ----------------------------------------------------------------------------------------------------------

def check_shapes(state, deck):
    assert {name: tuple(t.shape) for name, t in state.items()} == konclave_shapes(deck)


def check_hub_mapping(model, weights, deck):
    """Each hub tensor is the source of exactly one Konclave tensor (or one expert of it), with equal values."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        hub = load_file(pathlib.Path(folder, "model.safetensors"))
    experts = deck["moe"]["num_experts"] if deck["moe"] else 0
    used = collections.Counter()
    for name, t in weights.items():
        sources = hub_names(name, model.config.model_type, experts)
        used.update(sources)
        parts = [hub[s] for s in sources]
        assert torch.equal(torch.stack(parts) if ".moe.experts." in name else parts[0], t), name
    assert set(used) == set(hub) and set(used.values()) == {1}


def check_reload(case, folder, dtype, weights):
    """The checkpoint folder loads back to the initial weights (rounded to dtype)."""
    state = konclave_state(case.model.from_pretrained(folder, dtype=dtype).named_parameters())
    assert state.keys() == weights.keys()
    assert all(torch.equal(t, weights[name].to(dtype)) for name, t in state.items())


def check_rope_regimes(model):
    """llama3 and YaRN scaling: some frequencies kept, some divided by the factor, some in between."""
    rope = model.config.rope_parameters
    if rope["rope_type"] not in ("llama3", "yarn"):
        return
    plain, _ = model.model.rotary_emb.compute_default_rope_parameters(model.config)
    ratio = model.model.rotary_emb.inv_freq / plain
    kept, divided = (ratio - 1).abs() < 1e-5, (ratio * rope["factor"] - 1).abs() < 1e-5
    assert kept.any() and divided.any() and not (kept | divided).all()


# ---- one run ---------------------------------------------------------------------------------------------------------

class RouterTap:
    """Collects (layer, logits, weights, indices) of every router call."""

    def __init__(self, model):
        self.calls = []
        for i, layer in enumerate(model.model.layers):
            if hasattr(layer.mlp, "gate"):
                layer.mlp.gate.register_forward_hook(self.hook(i))

    def hook(self, layer):
        return lambda module, args, output: self.calls.append((layer, *(t.detach() for t in output)))

    def margin(self):
        """Smallest gap, over tokens and layers, between the last chosen and the first rejected probability."""
        gaps = [math.inf]
        for _, logits, _, indices in self.calls:
            ranked = logits.softmax(-1).sort(-1, descending=True)[0]
            k = indices.shape[1]
            gaps.append((ranked[:, k - 1] - ranked[:, k]).min().item())
        return min(gaps)

    def tensors(self):
        """What the routers computed; the choices of a token are in ascending expert order."""
        out = {}
        for layer, logits, weights, indices in self.calls:
            indices, order = indices.sort(dim=-1)
            out[f"router_logits.{layer}"] = logits.contiguous()
            out[f"topk_idx.{layer}"] = indices.contiguous()
            out[f"topk_weight.{layer}"] = weights.gather(1, order).contiguous()
        return out


def gradients(model):
    return konclave_state((name, p.grad) for name, p in model.named_parameters())


def train(model, ids):
    """STEPS optimizer steps: (step-0 forward tensors, step-0 gradients before clipping, numbers per step)."""
    tap = RouterTap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPS,
                                  weight_decay=WEIGHT_DECAY, foreach=False)
    log = {"loss": [], "grad_norm": [], "router_margin": []}
    for step in range(STEPS):
        tap.calls.clear()
        optimizer.zero_grad()
        output = model(input_ids=ids[step], labels=ids[step])
        output.loss.backward()
        if step == 0:
            forward = {"logits": output.logits.detach().contiguous(), **tap.tensors()}
            grads = gradients(model)
        log["loss"].append(output.loss.item())
        log["grad_norm"].append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM).item())
        log["router_margin"].append(tap.margin())
        optimizer.step()
    if not tap.calls:
        del log["router_margin"]
    return forward, grads, log


def run(case, dtype, ids, deck, folder):
    """Run one precision and write its tensors; returns the numbers for oracle.json."""
    model = build(case, dtype)
    check_rope_regimes(model)
    with float32_is_float64() if dtype == "f64" else contextlib.nullcontext():
        forward, grads, log = train(model, ids)
    after = konclave_state(model.named_parameters())
    for name, tensors in (("forward", forward), ("grads", grads), ("after5", after)):
        assert {t.dtype for t in tensors.values()} <= {DTYPES[dtype], torch.int64}
        save_file(tensors, folder / f"{name}_{dtype}.safetensors")
    check_shapes(grads, deck)
    check_shapes(after, deck)
    assert min(log.get("router_margin", [math.inf])) >= MIN_MARGIN, log
    return log


# ---- files -----------------------------------------------------------------------------------------------------------

def save_checkpoints(case, model, weights, folder):
    """hf/ as save_pretrained writes it, and hf_sharded/: bfloat16 in two shards."""
    if case.checkpoint:
        model.save_pretrained(folder / "hf")
        check_reload(case, folder / "hf", torch.float32, weights)
    if case.sharded:
        half = copy.deepcopy(model).to(torch.bfloat16)
        size = sum(2 * p.numel() for p in half.parameters())
        half.save_pretrained(folder / "hf_sharded", max_shard_size=size * 2 // 3)
        assert len(list((folder / "hf_sharded").glob("*.safetensors"))) == 2
        check_reload(case, folder / "hf_sharded", torch.bfloat16, weights)


def oracle_json(name, case, deck, runs):
    return {"model": name, "hf_class": case.model.__name__, "seed": case.seed, "config": deck, "runs": runs,
            "adamw": {"lr": LEARNING_RATE, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY,
                      "decoupled": True, "decay": "all parameters"},
            "clip_norm": CLIP_NORM, "clip_rule": "g *= min(1, clip_norm / (norm + 1e-6))",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}


def make(name, case, folder):
    """Write and check the whole folder of one model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, ids = build(case, "f32"), make_inputs(case)
    deck, weights = deck_config(model), konclave_state(model.named_parameters())
    check_shapes(weights, deck)
    check_hub_mapping(model, weights, deck)
    save_checkpoints(case, model, weights, folder)
    save_file(weights, folder / "weights.safetensors")
    save_file({"input_ids": ids}, folder / "inputs.safetensors")
    runs = {dtype: run(case, dtype, ids, deck, folder) for dtype in case.dtypes}
    (folder / "oracle.json").write_text(json.dumps(oracle_json(name, case, deck, runs), indent=1) + "\n")
    for path in folder.rglob("*.*"):
        path.chmod(0o644)
    print(name, sum(t.numel() for t in weights.values()), "parameters", json.dumps(runs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(CASES)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in arguments.models or CASES:
        make(name, CASES[name], arguments.out_dir / name)


if __name__ == "__main__":
    main()
