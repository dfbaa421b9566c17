#!/usr/bin/env python3
"""Training speed of Konclave and of transformers + torch on the same cores, measured in turns in one run.

The peer is Mixtral of transformers on 2 threads: loss with the auxiliary loss, backward, clipping, fused AdamW; a new
random batch in each step, experts by grouped_mm, memory that is freed kept by the allocator.  Ours is `konclave bench
step` of the same model and batch, 2 ranks that share the experts and the state of the optimizer.  Blocks of steps of
either side take turns, so that whatever else the machine does meets both; the medians are over the steps of all blocks.

No part of the tests: torch and transformers are installed into a virtual environment (--venv FOLDER makes it, --python
takes one that is there).  Where the processor has no bf16 products, torch falls back to loops that take minutes for a
step: a block of the peer may take --limit seconds, and what takes longer is reported as not measured.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
HIDDEN, HEADS, KV_HEADS, VOCABULARY, LENGTH, SEQUENCES = 512, 8, 4, 16384, 512, 2
SIZES = {
    "M": {"layers": 6, "experts": 8, "top_k": 2, "ffn": 1792},
    "L": {"layers": 4, "experts": 32, "top_k": 4, "ffn": 448},
}
# Tokens/s over the peer's that are wanted.  Those of bf16 are for processors with matrix units.
WANTED = {("M", "bf16"): 3.0, ("M", "fp32"): 1.25, ("L", "bf16"): 2.5, ("L", "fp32"): 1.25}
WANTED_MEMORY = 1.1  # times the peer's, at most
AUXILIARY = 0.02


def processor():
    model, flags = "unknown", set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() == "flags":
            flags = set(value.split())
    return model, flags


def make_environment(folder):
    subprocess.run(["sh", SOURCE / "tests" / "oracle" / "setup.sh", folder], check=True)
    return f"{folder}/bin/python"


# The peer: a process of its own, so that its peak of memory is that of the step.


def peer_model(size):
    import transformers
    transformers.logging.set_verbosity_error()
    config = transformers.MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=size["ffn"], num_hidden_layers=size["layers"],
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, num_local_experts=size["experts"],
        num_experts_per_tok=size["top_k"], max_position_embeddings=LENGTH, router_aux_loss_coef=AUXILIARY,
        output_router_logits=True, use_cache=False, bos_token_id=None, eos_token_id=None)
    config._attn_implementation = "sdpa"
    config._experts_implementation = "grouped_mm"
    return transformers.MixtralForCausalLM(config).train()


def peer(name, mode, block, steps, threads):
    """Seconds of each step behind a first one that is not counted, and the peak of memory, as JSON on stdout."""
    import resource

    import torch
    torch.set_num_threads(threads)
    torch.manual_seed(block)
    model = peer_model(SIZES[name])
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    seconds = []
    for _ in range(steps + 1):
        tokens = torch.randint(VOCABULARY, (SEQUENCES, LENGTH))
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("RESULT " + json.dumps({"seconds": seconds[1:], "peak_bytes": peak}))


def run_peer(arguments, name, mode, block):
    keep = str(1 << 40)
    environment = dict(os.environ, OMP_NUM_THREADS=str(arguments.threads), MALLOC_TRIM_THRESHOLD_=keep,
                       MALLOC_MMAP_THRESHOLD_=keep)
    command = [arguments.python, __file__, "--peer", f"{name},{mode},{block}", "--steps", str(arguments.steps),
               "--threads", str(arguments.threads)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"the peer failed:\n{done.stdout}{done.stderr}")
    return json.loads(lines[0].removeprefix("RESULT "))


# Ours.


def run_ours(arguments, name, mode):
    size = SIZES[name]
    keys = {"model.hidden_size": HIDDEN, "model.num_layers": size["layers"], "model.num_heads": HEADS,
            "model.num_kv_heads": KV_HEADS, "model.vocab_size": VOCABULARY, "model.sequence_length": LENGTH,
            "moe.num_experts": size["experts"], "moe.top_k": size["top_k"], "moe.ffn_hidden_size": size["ffn"],
            "moe.balancing": "aux_loss", "moe.aux_loss_coefficients": AUXILIARY, "batch.global_size": SEQUENCES,
            "batch.micro_size": 1, "parallel.ep": arguments.ranks, "optimizer.lr": 1e-4, "optimizer.clip_norm": 1.0,
            # The state of what all ranks hold, which is all but the experts, is there once, as it is at the peer.
            "parallel.distributed_optimizer": "true", "precision.compute": mode}
    # What an Open MPI that runs as root, or with more ranks than it thinks there are cores, has to be told.
    environment = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
                   "OMP_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "bench.json"
        command = [*shlex.split(arguments.launcher), "-n", str(arguments.ranks), arguments.program, "bench", "step",
                   *(f"{key}={value}" for key, value in keys.items()), "--repetitions", str(max(7, arguments.steps)),
                   "--json", str(result)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{shlex.join(command)} failed:\n{done.stdout}")
        return json.loads(result.read_text())["benchmarks"][0]


# Both.


def measure(arguments, name, mode):
    """Blocks of both sides in turns: medians of tokens/s, and peaks of memory."""
    peers, ours = [], []
    tokens = SEQUENCES * LENGTH
    for block in range(arguments.blocks):
        if block == len(peers):  # else the peer was too slow once and is not asked again
            found = run_peer(arguments, name, mode, block)
            peers += [found] if found else []
        ours.append(run_ours(arguments, name, mode))
        print(f"  {name} {mode}, block {block + 1} of {arguments.blocks}", file=sys.stderr, flush=True)
    result = {
        "size": name,
        "compute": mode,
        "tokens_per_second": statistics.median(run["tokens_per_second"] for run in ours),
        "tokens_per_second_blocks": [run["tokens_per_second"] for run in ours],
        "share_of_limit": statistics.median(run["lines"][0]["ratio"] for run in ours),
        "memory_bytes": max(run["memory"]["process_peak_bytes_shared_once"] for run in ours),
        "account_bytes": max(run["memory"]["account_bytes"] for run in ours),
        "peer": None,
    }
    if len(peers) == arguments.blocks:
        seconds = [statistics.median(run["seconds"]) for run in peers]
        result["peer"] = {
            "tokens_per_second": tokens / statistics.median(second for run in peers for second in run["seconds"]),
            "tokens_per_second_blocks": [tokens / second for second in seconds],
            "memory_bytes": max(run["peak_bytes"] for run in peers),
        }
    return result


def judge(value, wanted, applies, at_most=False):
    if not applies:
        return "not applicable"
    return "reached" if (value <= wanted if at_most else value >= wanted) else "not reached"


def row(result, has_matrix_units):
    name, mode, theirs = result["size"], result["compute"], result["peer"]
    gib = 2**30
    memory = result["memory_bytes"]
    cells = [f"{name} {mode}", f"{result['tokens_per_second']:.0f}", f"{result['share_of_limit']:.0%}"]
    if theirs is None:
        return cells + ["not measured", "", "", f"{memory / gib:.2f}", "", ""]
    ratio = result["tokens_per_second"] / theirs["tokens_per_second"]
    wanted = WANTED[name, mode]
    verdict = judge(ratio, wanted, mode == "fp32" or has_matrix_units)
    verdict_memory = judge(memory / theirs["memory_bytes"], WANTED_MEMORY, True, at_most=True)
    return cells + [f"{theirs['tokens_per_second']:.0f}", f"{ratio:.2f}", f"{wanted:.2f}: {verdict}",
                    f"{memory / gib:.2f}", f"{theirs['memory_bytes'] / gib:.2f}",
                    f"{memory / theirs['memory_bytes']:.2f}, wanted {WANTED_MEMORY}: {verdict_memory}"]


def show(rows):
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(rows[0]))]
    for cells in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", help="make a virtual environment with torch and transformers in this folder")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has them already")
    parser.add_argument("--program", default=str(SOURCE / "build" / "release" / "konclave"))
    parser.add_argument("--launcher", default="mpirun", help="what starts ranks by -n")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of the peer")
    parser.add_argument("--sizes", default="M,L")
    parser.add_argument("--compute", default="fp32,bf16")
    parser.add_argument("--blocks", type=int, default=3, help="of either side, in turns")
    parser.add_argument("--steps", type=int, default=7, help="of a block")
    parser.add_argument("--limit", type=float, default=180, help="seconds that a block of the peer may take")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.peer:
        name, mode, block = arguments.peer.split(",")
        peer(name, mode, int(block), arguments.steps, arguments.threads)
        return
    if arguments.venv:
        arguments.python = make_environment(arguments.venv)
    model, flags = processor()
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
    print(f"{model}: {', '.join(units)}; {arguments.ranks} ranks against {arguments.threads} threads, "
          f"{SEQUENCES * LENGTH} tokens a step, medians of {arguments.blocks} blocks in turns", flush=True)
    results = [measure(arguments, name, mode)
               for name in arguments.sizes.split(",") for mode in arguments.compute.split(",")]
    heads = ["step", "tokens/s", "of limit", "peer's", "ratio", "wanted", "GiB", "peer's GiB", "ratio of memory"]
    show([heads, *(row(result, "amx_bf16" in flags) for result in results)])
    if arguments.json:
        pathlib.Path(arguments.json).write_text(
            json.dumps({"cpu": model, "product_units": units, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
