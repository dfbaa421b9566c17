#pragma once

#include "layers/context.hpp"
#include "moe/dispatch_rounds.hpp"

#include <vector>

/// What dispatchers do to rows in memory.
namespace konclave {

/// An order of rows in terms of another, both ways: from_of(row after) = row before, and to_of the
/// inverse.
struct RowOrder {
  View1<const int> from_of, to_of;
};

bool keep_their_places(const std::vector<DispatchChunk>& chunks);
/// The order that chunks bring about. Memory is an activation.
RowOrder make_row_order(const Context& context, const std::vector<DispatchChunk>& chunks,
                        std::int64_t rows);

/// y[i] = x[source[i]] of whole numbers. Memory is an activation.
View1<const int> compose(const Context& context, const View1<const int>& x,
                         const View1<const int>& source);
/// y[i] = x[source[i]], for rows and for single values.
void pick(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source, const AnyView& y);

/// (rows,H) or (rows), as `like` is.
AnyView scratch_like(const Context& context, const AnyIn& like, std::int64_t rows);
/// (rows,H), where H is 1 for single values.
AnyIn as_matrix(const AnyIn& view);
AnyView as_matrix(const AnyView& view);

}  // namespace konclave
