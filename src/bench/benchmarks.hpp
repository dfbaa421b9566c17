#pragma once

#include "bench/report.hpp"
#include "bench/setup.hpp"

namespace konclave {

/// Each measures on all ranks together and reports the same on each. Collective.

/// Products of one matrix (ffn, hidden), by every backend, weights in the caches and out of them.
BenchReport bench_gemm(const BenchSetup& setup);
/// Products of experts, beside one dense product of equal work: 8 with 256 rows on the average and
/// 64 with 32, or the sizes that are set.
BenchReport bench_grouped_gemm(const BenchSetup& setup);
BenchReport bench_attention(const BenchSetup& setup);
BenchReport bench_router(const BenchSetup& setup);
/// Rows to the experts of the ranks and back.
BenchReport bench_dispatch(const BenchSetup& setup);
/// An MoE layer with attention, forward and backward.
BenchReport bench_layer(const BenchSetup& setup);
/// A training step on fresh random batches.
BenchReport bench_step(const BenchSetup& setup);
/// A training step with statistics of the routing and all that a run writes down of it, beside one
/// without.
BenchReport bench_logging(const BenchSetup& setup);

}  // namespace konclave
