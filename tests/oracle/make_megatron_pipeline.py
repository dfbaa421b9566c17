#!/usr/bin/env python3
"""Pipeline schedules and layer placement from megatron-core, and what it refuses of them.

usage: make_megatron_pipeline.py OUT_DIR   (writes OUT_DIR/pipeline.json; its "notes" say what is in it)

Schedules of up to four stages are also run by megatron-core itself, one gloo process for each stage of a toy model, and
must do their forwards and backwards in the order that is written.
"""
import argparse
import multiprocessing
import pathlib
import tempfile
import types
import warnings

import torch

warnings.filterwarnings("ignore")
torch.cuda.current_device = lambda: "cpu"      # megatron-core only asks for the device's name
import megatron.core
from megatron.core import parallel_state
from megatron.core.enums import ModelType
from megatron.core.model_parallel_config import ModelParallelConfig
from megatron.core.pipeline_parallel import schedules
from megatron.core.transformer.enums import LayerType
from megatron.core.transformer.transformer_block import get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

from make_megatron import write

NOTES = [
    "schedules: pp stages of vpp chunks, micro_batches, group = micro-batches that pass a chunk in a row (0 with vpp 1)",
    "stages: what each of them does in its order, F3.1 = forward of micro-batch 3 through chunk 1, B = backward",
    "in_flight: the most (micro-batch, chunk) pairs that a stage holds between forward and backward",
    "refused_schedules: shapes that megatron-core's interleaved schedule raises an error for",
    "layouts: parts are in the order of chunk * pp + stage; [embedding, first layer, layers, loss];"
    " first and last = layers of the first and last stage, 0 = not given",
    "refused_layouts: numbers and texts that megatron-core raises an error for",
    "m, layers for multi-token prediction, are left out: Konclave has none",
]
SHAPE = ("pp", "vpp", "micro_batches", "group")
SHAPES = [
    (1, 1, 3, 0), (2, 1, 4, 0), (3, 1, 5, 0), (4, 1, 8, 0), (4, 1, 3, 0), (4, 1, 1, 0), (8, 1, 12, 0), (8, 1, 5, 0),
    (2, 2, 2, 2), (2, 2, 4, 2), (2, 2, 6, 3), (2, 2, 5, 3), (2, 3, 4, 4), (2, 4, 4, 2), (2, 4, 7, 5), (3, 2, 6, 3),
    (3, 2, 7, 4), (3, 4, 3, 3), (4, 2, 4, 4), (4, 2, 8, 4), (4, 2, 9, 5), (4, 2, 12, 6), (4, 3, 8, 4), (4, 4, 10, 6),
    (8, 2, 8, 8), (8, 2, 17, 9), (8, 3, 16, 8), (8, 4, 16, 8), (8, 4, 18, 10),
    # Refused:
    (2, 2, 5, 2), (4, 2, 10, 4), (4, 2, 3, 4), (4, 2, 8, 3), (4, 3, 7, 5), (8, 4, 12, 8), (4, 2, 8, 9), (8, 2, 9, 8),
]
SPLIT = ("num_layers", "pp", "vpp", "first", "last", "layout")
SPLITS = [
    (3, 1, 1, 0, 0, ""), (8, 4, 1, 0, 0, ""), (8, 2, 2, 0, 0, ""), (8, 2, 4, 0, 0, ""), (24, 4, 3, 0, 0, ""),
    (32, 8, 4, 0, 0, ""), (9, 4, 1, 2, 1, ""), (10, 4, 1, 4, 0, ""), (10, 4, 1, 0, 1, ""), (8, 2, 1, 3, 5, ""),
    (14, 4, 2, 2, 4, ""), (12, 2, 2, 4, 0, ""), (20, 4, 2, 2, 0, ""), (20, 8, 2, 4, 4, ""), (7, 2, 1, 3, 0, ""),
    (8, 4, 1, 0, 0, "Ett|tt|tt|ttL"), (9, 5, 1, 0, 0, "Et*3|(tt|)*2,t*2|L"), (6, 2, 2, 0, 0, "E|t*2|t*2|t*2,L"),
    (8, 4, 2, 0, 0, "Et|(t|)*6tL"), (13, 8, 1, 0, 0, "Ettt|(tt|)*5,|L"), (2, 4, 1, 0, 0, "E||tt|L"),
    (3, 1, 1, 0, 0, "Et*3,L"), (7, 4, 2, 0, 0, "E,t|*2,(t|)*4,t*2|L"), (31, 8, 4, 0, 0, "E|(t|)*28,t*3|*2,L"),
    (5, 2, 1, 0, 0, "Et*1,|t*4L"), (4, 2, 2, 0, 0, "Et|(t*2)*1|t|L"), (6, 3, 1, 0, 0, "E(tt|)*2ttL"),
    # Refused:
    (10, 4, 1, 0, 0, ""), (7, 2, 1, 0, 0, ""), (8, 4, 4, 0, 0, ""), (24, 4, 4, 0, 0, ""), (10, 4, 1, 3, 0, ""),
    (10, 4, 1, 3, 2, ""), (8, 2, 1, 3, 4, ""), (14, 4, 2, 3, 3, ""), (16, 4, 3, 6, 2, ""), (4, 4, 1, 2, 2, ""),
    (8, 4, 1, 0, 0, "tt|tt|tt|ttL"), (8, 4, 1, 0, 0, "Ett|tt|tt|tt"), (9, 4, 1, 0, 0, "Ett|tt|tt|ttL"),
    (8, 4, 1, 2, 0, "Ett|tt|tt|ttL"), (3, 2, 1, 0, 0, "Et|t|tL"), (8, 2, 4, 0, 0, "Ett|tt|tt|ttL"),
    (2, 2, 1, 0, 0, "Et|E,tL"), (2, 2, 1, 0, 0, "Et|tL*2"), (2, 2, 1, 0, 0, "Et|t L"), (2, 2, 1, 0, 0, "Et|xtL"),
    (6, 2, 1, 0, 0, "E((t|)*2t)*2L"), (2, 2, 1, 0, 0, "E(t|)tL"), (2, 2, 1, 0, 0, "E(t|t*2L"),
    (2, 2, 1, 0, 0, "Et|t)*2L"), (2, 2, 1, 0, 0, "Et*|tL"), (6, 2, 1, 0, 0, "Et*2*3|L"), (2, 2, 1, 0, 0, "et|tl"),
]


def stage_of(rank, pp, vpp):
    """What the functions of schedules.py ask about a rank."""
    group = types.SimpleNamespace(size=lambda: pp, rank=lambda: rank)
    return types.SimpleNamespace(pp_group=group, virtual_pipeline_model_parallel_size=None if vpp == 1 else vpp)


def order_of(rank, pp, vpp, micro_batches, group):
    """Megatron's warm-up and table in the loops of its schedules: forwards, then pairs, then backwards."""
    _, _, warm, remaining = schedules.get_pp_rank_microbatches(micro_batches, vpp, group or 1,
                                                               p2p_communicator=stage_of(rank, pp, vpp))
    table = schedules.get_schedule_table(micro_batches, vpp, group or micro_batches)
    forward = [f"F{micro_batch}.{chunk}" for micro_batch, chunk in table]
    backward = [f"B{micro_batch}.{vpp - 1 - chunk}" for micro_batch, chunk in table]
    order = forward[:warm]
    for i in range(remaining):
        order += [forward[warm + i], backward[i]]
    return order + backward[remaining:]


def most_in_flight(order):
    held = [0]
    for work in order:
        held.append(held[-1] + (1 if work[0] == "F" else -1))
    assert held[-1] == 0
    return max(held)


def configuration(pp, vpp, group):
    config = ModelParallelConfig(
        pipeline_model_parallel_size=pp, virtual_pipeline_model_parallel_size=None if vpp == 1 else vpp,
        pipeline_dtype=torch.float32, batch_p2p_comm=False, overlap_p2p_comm=vpp > 1, deallocate_pipeline_outputs=False,
        microbatch_group_size_per_vp_stage=group or 1)
    config.hidden_size, config.variable_seq_lengths = 4, False
    config.fine_grained_activation_offloading = False
    return config


class Chunk(torch.nn.Module):
    """One linear layer that writes down when it goes forward and backward."""

    def __init__(self, chunk, vpp, config, log):
        super().__init__()
        self.linear, self.log, self.name, self.micro_batch = torch.nn.Linear(4, 4), log, chunk, 0
        self.config, self.model_type, self.share_embeddings_and_output_weights = config, ModelType.encoder_or_decoder, False
        self.vp_stage = chunk if vpp > 1 else None
        self.received = None

    def set_input_tensor(self, tensor):
        self.received = tensor[0] if isinstance(tensor, list) else tensor

    def forward(self):
        work = f"{self.micro_batch}.{self.name}"
        self.micro_batch += 1
        self.log.append("F" + work)
        y = self.linear(self.received if self.received is not None else torch.ones(2, 1, 4))
        y.register_hook(lambda gradient: self.log.append("B" + work))
        return y


def without_cuda():
    """Lets megatron-core's schedules run on a CPU: it spells device="cuda" in places."""
    torch.cuda.synchronize = lambda *arguments: None
    for name in ("zeros", "ones", "empty", "tensor"):
        def on_cpu(*arguments, make=getattr(torch, name), **options):
            if options.get("device") == "cuda":
                options["device"] = "cpu"
            return make(*arguments, **options)
        setattr(torch, name, on_cpu)


def run_stage(rank, shape, store, logs):
    """Runs megatron-core's schedule as one stage; puts (rank, order) or (rank, the error's type) into `logs`."""
    pp, vpp, micro_batches, group = shape
    torch.set_num_threads(1)
    without_cuda()
    torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=pp)
    parallel_state.initialize_model_parallel(1, pp, virtual_pipeline_model_parallel_size=None if vpp == 1 else vpp)
    log = []
    config = configuration(pp, vpp, group)
    chunks = [Chunk(chunk, vpp, config, log) for chunk in range(vpp)]

    def step(data, model, *rest):
        return model(), lambda y: (y.sum(), {"loss": y.sum().detach()})

    try:
        schedules.get_forward_backward_func()(
            forward_step_func=step, data_iterator=[iter(())] * vpp if vpp > 1 else iter(()),
            model=chunks if vpp > 1 else chunks[0], num_microbatches=micro_batches, seq_length=2, micro_batch_size=1,
            forward_only=False)
    except (ValueError, RuntimeError) as error:
        log = type(error).__name__
    logs.put((rank, log))
    torch.distributed.barrier()


def run(shape):
    """The orders of all stages, as run by megatron-core, or None when it refuses the shape."""
    context = multiprocessing.get_context("spawn")
    logs = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (shape, folder + "/store", logs)
        processes = [context.Process(target=run_stage, args=(rank, *arguments)) for rank in range(shape[0])]
        for process in processes:
            process.start()
        found = dict(logs.get(timeout=120) for _ in processes)
        for process in processes:
            process.join()
    orders = [found[rank] for rank in range(shape[0])]
    refused = [isinstance(order, str) for order in orders]
    assert all(refused) or not any(refused), found
    return None if all(refused) else orders


def shape_cases(runs):
    accepted, refused = [], []
    for shape in SHAPES:
        pp, vpp, micro_batches, group = shape
        named = dict(zip(SHAPE, shape))
        # The two checks of forward_backward_pipelining_with_interleaving.
        legal = vpp == 1 or (pp <= group <= micro_batches and not 0 < micro_batches % group < pp)
        orders = [order_of(rank, *shape) for rank in range(pp)] if legal else None
        if runs and 1 < pp <= 4:
            assert run(shape) == orders, (shape, run(shape), orders)
            print("ran", named, "refused" if orders is None else "", flush=True)
        if legal:
            accepted.append({**named, "in_flight": [most_in_flight(order) for order in orders],
                             "stages": [" ".join(order) for order in orders]})
        else:
            refused.append(named)
    return accepted, refused


def part_of(config, chunk, stage):
    """[embedding, first layer, layers, loss] of a chunk."""
    layout = config.pipeline_model_parallel_layout
    if layout is not None:
        kinds = layout.layout[stage][chunk or 0]
        return [LayerType.embedding in kinds, layout.get_layer_offset(LayerType.decoder, chunk, stage),
                layout.get_num_layers_to_build(LayerType.decoder, chunk, stage), LayerType.loss in kinds]
    chunks = config.virtual_pipeline_model_parallel_size or 1
    is_first = stage == 0 and (chunk or 0) == 0
    is_last = stage == config.pipeline_model_parallel_size - 1 and (chunk or 0) == chunks - 1
    return [is_first, get_transformer_layer_offset(config, chunk, stage), get_num_layers_to_build(config, chunk, stage),
            is_last]


def parts_of(num_layers, pp, vpp, first, last, layout):
    config = TransformerConfig(
        num_layers=num_layers, hidden_size=8, num_attention_heads=2, pipeline_dtype=torch.float32,
        pipeline_model_parallel_size=pp, virtual_pipeline_model_parallel_size=None if vpp == 1 else vpp,
        num_layers_in_first_pipeline_stage=first or None, num_layers_in_last_pipeline_stage=last or None,
        pipeline_model_parallel_layout=layout or None)
    chunks = config.virtual_pipeline_model_parallel_size
    parallel_state.set_virtual_pipeline_model_parallel_world_size(chunks)
    return [part_of(config, chunk, stage) for chunk in (range(chunks) if chunks else [None]) for stage in range(pp)]


def split_cases():
    accepted, refused = [], []
    for split in SPLITS:
        named = dict(zip(SPLIT, split))
        try:
            parts = parts_of(*split)
        except (AssertionError, ValueError):
            refused.append(named)
            continue
        accepted.append({**named, "parts": [[int(x) for x in part] for part in parts]})
    return accepted, refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    parser.add_argument("--no-run", action="store_true", help="do not run the schedules")
    options = parser.parse_args()
    accepted, refused = shape_cases(not options.no_run)
    layouts, refused_layouts = split_cases()
    data = {"notes": NOTES, "versions": {"megatron_core": megatron.core.__version__}, "schedules": accepted,
            "refused_schedules": refused, "layouts": layouts, "refused_layouts": refused_layouts}
    write(data, options.out_dir, "pipeline")


if __name__ == "__main__":
    main()
