#pragma once

#include "layers/context.hpp"
#include "moe/dispatch_rounds.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

/// What dispatchers do to rows in memory.
namespace konclave {

bool keep_their_places(const std::vector<DispatchChunk>& chunks);
/// Where chunks bring each of `rows` rows. Memory is an activation.
View1<const int> places_after(const Context& context, const std::vector<DispatchChunk>& chunks,
                              std::int64_t rows);

/// y[i] = x[source[i]] of whole numbers. Memory is an activation.
View1<const int> compose(const Context& context, const View1<const int>& x,
                         const View1<const int>& source);

/// (rows,H) or (rows), as `like` is.
AnyView scratch_like(const Context& context, const AnyIn& like, std::int64_t rows);
/// The same for each of several, as `rows` says: memory of their own or, for so many at a time, by
/// turns.
std::vector<AnyView> scratch_by_turns(const Context& context, const AnyIn& like,
                                      const std::vector<std::int64_t>& rows, std::size_t turns);
/// (rows,H), where H is 1 for single values.
AnyIn as_matrix(const AnyIn& view);
AnyView as_matrix(const AnyView& view);

}  // namespace konclave
