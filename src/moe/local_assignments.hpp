#pragma once

#include "moe/routing_plan.hpp"

namespace konclave {

/// Of the assignments of many tokens, which are those of this rank's experts, and the rows of these
/// in the order (expert, token).
struct LocalAssignments {
  View1<const int> token_offsets;   ///< (T+1), local assignments of each token
  View1<const int> row_of;          ///< (R), row of a local assignment
  View1<const int> assignment_of;   ///< (R), assignment of a row, counted among all
  View1<const int> expert_offsets;  ///< (L+1)
};

/// Picks the assignments of the experts first .. first + L - 1, of which there are R. Memory of the
/// result is an activation.   Shapes  token_offsets (T+1)   expert_ids (A).
LocalAssignments pick_local(const Context& context, const View1<const int>& token_offsets,
                            const View1<const int>& expert_ids, int first, int local,
                            std::int64_t rows);

}  // namespace konclave
