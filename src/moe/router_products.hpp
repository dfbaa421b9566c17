#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

/// Products of a router's weight Wr (E,H), in the router's type, with rows x (T,H) that may be of a
/// narrower one. Then they are made piece by piece (RouterCut): what is widened is used and
/// forgotten before it leaves the caches, and nobody keeps a wide copy of x.
namespace konclave {

/// x itself where it has the type, else a copy from `memory`.
AnyIn in_type(const Context& context, Arena& memory, DType type, const AnyIn& x);

/// l = x Wr^T.   Shapes  x (T,H)   l (T,E), of the router's type.
void router_logits(const Context& context, const Parameter& weight, const AnyIn& x,
                   const AnyView& l);
/// Adds dl^T x to the gradient of the weight, and dl Wr to dx.
/// Shapes  dl (T,E), of the router's type   x, dx (T,H).
void add_router_gradients(const Context& context, const Parameter& weight, const AnyIn& dl,
                          const AnyIn& x, const AnyView& dx);

}  // namespace konclave
