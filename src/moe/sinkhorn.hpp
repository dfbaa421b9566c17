#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"
#include "moe/moe_step.hpp"

namespace konclave {

/// Rounds after which Sinkhorn's iteration ends whatever it has reached.
inline constexpr int kMostSinkhornRounds = 100;

/// A plan that spreads the tokens of each routing window evenly over the experts (S-BASE, Clark et
/// al. 2022), by Sinkhorn's iteration over the window's Tw tokens:
///   C[t,e] = exp(l[t,e] - largest l[t,:]),   d1[e] = 1;   until mean |change of d1| <= 1e-4:
///   d0[t] = 1 / (Tw (sum over e of C[t,e] d1[e] + 1e-8))
///   d1[e] = 1 / (E (sum over t of C[t,e] d0[t] + 1e-8))
///   plan[t,e] = d0[t] C[t,e] d1[e]
/// The largest of a row is taken off it because d0 makes up for any factor of a row; so no logit
/// overflows. Sums are in double, over the ranks of `sharing` in their order, in one exchange a
/// round; a window that has converged stays as it is, so that it does not depend on others in its
/// micro-batch. Waits for `exec` in each round.
/// Shapes  l, plan (T,E) of one type.    The plan is in scratch.
AnyView sinkhorn_plan(const Context& context, const Transport& sharing,
                      const RoutingWindows& windows, const AnyIn& l);

}  // namespace konclave
