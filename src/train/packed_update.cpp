#include "train/packed_update.hpp"

#include <algorithm>

namespace konclave {

namespace {

/// Elements of a strip for each thread, whose new values stay in its second cache; and how many
/// threads count: a device has more than strips can use.
constexpr std::int64_t kStripElements = std::int64_t{1} << 16;
constexpr std::int64_t kMostThreads = 256;

/// Rows of a strip: as many for each thread, and as `pack` wants them.
std::int64_t rows_of_strip(const ExecSpace& exec, const GemmShape& shape) {
  constexpr std::int64_t kRows = WeightPacking::kRows;
  const std::int64_t threads = std::clamp<std::int64_t>(exec.concurrency(), 1, kMostThreads);
  const std::int64_t each = std::max(kRows, kStripElements / shape.in / kRows * kRows);
  return std::min<std::int64_t>(each * threads, shape.out);
}

}  // namespace

void update_and_pack(const ExecSpace& exec, Operations& operations, Arena& scratch,
                     const ops::AdamW& rule, ops::ChanceRounding rounding,
                     const Optimizer::State& state) {
  const ArenaScope scope(scratch);
  const Parameter& parameter = *state.piece.parameter;
  const GemmShape shape = parameter.gemm_shape(GemmKind::forward);
  const std::int64_t rows = parameter.size() / shape.in, most = rows_of_strip(exec, shape);
  const bool kept = parameter.keeps_values();
  const AnyView room = kept ? AnyView() : scratch.make(shape.type, most, shape.in);
  for (std::int64_t matrix = 0; matrix < rows / shape.out; ++matrix) {
    for (std::int64_t first = 0; first < shape.out; first += most) {
      const std::int64_t count = std::min(most, shape.out - first);
      const auto strip = [&](const AnyView& view) {
        return view.reshape(rows, shape.in).slice(matrix * shape.out + first, count);
      };
      const AnyView values = kept ? strip(parameter.value()) : room.slice(0, count);
      rounding.skipped = (matrix * shape.out + first) * shape.in;
      ops::adamw(exec, rule, strip(parameter.grad()), strip(state.master),
                 strip(state.first_moment), strip(state.second_moment), values, rounding);
      parameter.pack(exec, operations, matrix, values, first);
    }
  }
}

}  // namespace konclave
