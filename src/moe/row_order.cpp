#include "moe/row_order.hpp"

#include "ops/rows.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>

namespace konclave {

bool keep_their_places(const std::vector<DispatchChunk>& chunks) {
  return std::all_of(chunks.begin(), chunks.end(),
                     [](const DispatchChunk& chunk) { return chunk.from == chunk.to; });
}

View1<const int> places_after(const Context& context, const std::vector<DispatchChunk>& chunks,
                              std::int64_t rows) {
  std::vector<int> host;
  for (const DispatchChunk& chunk : chunks) {
    for (const std::int64_t value : {chunk.from, chunk.to, chunk.rows}) {
      host.push_back(static_cast<int>(value));
    }
  }
  const auto places = context.activations.make1<int>(rows);
  const View1<const int> table = upload(context.exec, context.activations, host);
  Kokkos::parallel_for(
      "konclave::moe::places_after",
      ops::row_policy(context.exec, static_cast<std::int64_t>(chunks.size())),
      KOKKOS_LAMBDA(const ops::RowMember& team) {
        const int chunk = 3 * team.league_rank();
        const int from = table(chunk), to = table(chunk + 1);
        ops::row_for(team, table(chunk + 2),
                     [&](const std::int64_t i) { places(from + i) = to + static_cast<int>(i); });
      });
  return places;
}

View1<const int> compose(const Context& context, const View1<const int>& x,
                         const View1<const int>& source) {
  const auto y = context.activations.make1<int>(static_cast<std::int64_t>(source.size()));
  Kokkos::parallel_for(
      "konclave::moe::compose", Range(context.exec, 0, static_cast<std::int64_t>(source.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { y(i) = x(source(i)); });
  return y;
}

AnyView scratch_like(const Context& context, const AnyIn& like, std::int64_t rows) {
  return like.rank() == 1 ? context.scratch.make(like.type(), rows)
                          : context.scratch.make(like.type(), rows, like.extent(1));
}

std::vector<AnyView> scratch_by_turns(const Context& context, const AnyIn& like,
                                      const std::vector<std::int64_t>& rows, std::size_t turns) {
  std::vector<AnyView> views;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (turns >= rows.size()) {
      views.push_back(scratch_like(context, like, rows[i]));
    } else if (i < turns) {
      views.push_back(scratch_like(context, like, *std::max_element(rows.begin(), rows.end())));
    } else {
      views.push_back(views[i - turns]);
    }
  }
  for (std::size_t i = 0; i < rows.size(); ++i) views[i] = views[i].slice(0, rows[i]);
  return views;
}

AnyIn as_matrix(const AnyIn& view) { return view.reshape(view.extent(0), view.extent(1)); }
AnyView as_matrix(const AnyView& view) { return view.reshape(view.extent(0), view.extent(1)); }

}  // namespace konclave
