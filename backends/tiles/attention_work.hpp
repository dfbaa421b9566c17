#pragma once

#include "ops/attention.hpp"
#include "ops/attention_heads.hpp"
#include "ops/attention_rows.hpp"
#include "ops/matrix.hpp"
#include "tiles/attention_kernels.hpp"
#include "tiles/kernels.hpp"

#include <cstdint>
#include <vector>

/// Attention by blocks of query rows of one head; the formulas are those of
/// ops/blocked_attention.hpp. Operands are in bf16, P and D as well where they enter a product;
/// sums and what is made of them are in fp32. Keys and values are packed once for all heads that
/// read them.
namespace konclave::tiles {

using Workspace = ops::Workspace<float>;

/// What is compiled for the CPU at hand.
struct AttentionParts {
  const Kernels& products;
  const AttentionKernels& rows;
};

/// Bytes of scratch memory for all threads, for either direction.
std::size_t attention_workspace(const AttentionShape& shape, std::int64_t longest);

/// Floats of it for one thread.
std::int64_t forward_size(const AttentionShape& shape, std::int64_t keys);
std::int64_t backward_size(const AttentionShape& shape, std::int64_t keys);

void attention_forward(const ExecSpace& exec, const AttentionParts& parts,
                       const AttentionShape& shape, const AttentionForward& call);
void attention_backward(const ExecSpace& exec, const AttentionParts& parts,
                        const AttentionShape& shape, const AttentionBackward& call);

/// Query rows of a block.
inline constexpr int kBlockRows = 64;

/// A matrix of which rows begin `stride` elements apart. Borrows.
template <typename X> struct Rows {
  X* data = nullptr;
  std::int64_t rows = 0, columns = 0, stride = 0;

  X* row(std::int64_t i) const { return data + i * stride; }
};
using HeadRows = Rows<const std::uint16_t>;

/// Rows of head `head`, `size` wide, from row `first` on.
HeadRows head_rows(const AnyIn& all, int head, int size, std::int64_t first, std::int64_t count);
Rows<std::uint16_t> head_rows(const AnyView& all, int head, int size, std::int64_t first,
                              std::int64_t count);

/// Scratch matrices. Their rows are padded to full blocks and lie an odd number of lines of the
/// cache apart, so that the rows of a block do not meet in few of its sets.
Rows<float> take_floats(Workspace& workspace, std::int64_t rows, std::int64_t columns);
Rows<std::uint16_t> take_halves(Workspace& workspace, std::int64_t rows, std::int64_t columns);
/// Memory for the blocks of a matrix.
std::uint16_t* take_blocks(Workspace& workspace, std::int64_t rows, std::int64_t columns);
/// Floats of a workspace that each of them takes up.
std::int64_t size_of_floats(std::int64_t rows, std::int64_t columns);
std::int64_t size_of_halves(std::int64_t rows, std::int64_t columns);
std::int64_t size_of_blocks(std::int64_t rows, std::int64_t columns);

/// A left factor: full blocks of rows where they are when each row ends with a block, the others
/// copied.
struct LeftRows {
  LeftBlocks in_place, copied;
  std::int64_t first_copied = 0;
};
/// Copies to `scratch`, which has room for all blocks.
LeftRows left_of_rows(const HeadRows& from, std::uint16_t* scratch);
/// The transpose as a left factor, in `to`.
LeftRows left_of_columns(const Kernels& kernels, const HeadRows& from, std::uint16_t* to);
/// The matrix, or its transpose, as a right factor, in the workspace.
RightPanels right_of_rows(const Kernels& kernels, const HeadRows& from, Workspace& workspace);
RightPanels right_of_columns(const Kernels& kernels, const HeadRows& from, Workspace& workspace);

/// The product of factors with `steps` blocks of inner extent, for the extents of c: its columns
/// are full blocks.
void multiply(const Kernels& kernels, Store store, const LeftRows& left, std::int64_t steps,
              const RightPanels& right, const Rows<float>& c);

/// How many leading keys of its sequence each row of a block sees.
struct SeenKeys {
  int of_row[kBlockRows];

  SeenKeys(const AttentionRows& rows, const ops::AttentionSequence& sequence,
           const ops::AttentionBlock& block);
};

/// A `Head` for each sequence and head of its keys, run for all queries that read it.
template <typename Head, typename Call>
void for_each_head(const char* label, const ExecSpace& exec, const AttentionParts& parts,
                   const AttentionShape& shape, const Call& call) {
  const int group = shape.heads / shape.kv_heads;
  ops::for_each_kv_head(
      label, exec, shape, call, kBlockRows,
      [&](const ops::AttentionSequence& sequence, int kv_head, const Workspace& workspace) {
        const Head work(parts, shape, call, sequence, kv_head, workspace);
        for (const ops::AttentionBlock& block : sequence.blocks) {
          const SeenKeys seen(call.rows, sequence, block);
          for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            work.run(head, block, seen);
          }
        }
        work.finish();
      });
}

}  // namespace konclave::tiles
