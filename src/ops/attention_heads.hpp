#pragma once

#include "ops/attention.hpp"
#include "ops/attention_rows.hpp"
#include "ops/matrix.hpp"
#include "ops/workers.hpp"

#include <cstdint>
#include <vector>

namespace konclave::ops {

/// f(sequence, kv_head, workspace) for each sequence of a call and each head of its keys, with the
/// queries in blocks of `block_rows`: attention of one is independent of all others. Each thread
/// has an equal part of the workspace. Waits for `exec`.
template <typename Call, typename F>
void for_each_kv_head(const char* label, const ExecSpace& exec, const AttentionShape& shape,
                      const Call& call, int block_rows, const F& f) {
  const std::vector<AttentionSequence> sequences = plan_attention(exec, call.rows, block_rows);
  const std::int64_t each = call.workspace.size() / workers(exec);
  for_each_item(label, exec, static_cast<std::int64_t>(sequences.size()) * shape.kv_heads,
                [&](std::int64_t worker, std::int64_t item) {
                  f(sequences[item / shape.kv_heads], static_cast<int>(item % shape.kv_heads),
                    Workspace<float>(call.workspace.slice(worker * each, each)));
                });
}

}  // namespace konclave::ops
