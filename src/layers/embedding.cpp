#include "layers/embedding.hpp"

#include "ops/embedding.hpp"

namespace konclave {

namespace {

Parameter make(const ParameterSpec& spec, const TensorParallel& tp,
               const ParameterStorage& storage) {
  return {spec, Placement::part(spec.shape, 0, tp), storage};
}

}  // namespace

Embedding::Embedding(const std::string& name, int vocabulary, int hidden, DType type,
                     double init_std, const TensorParallel& tp, const ParameterStorage& storage)
    : tp_(tp),
      weight_(make({name + ".weight", {vocabulary, hidden}, type, init_std}, tp, storage)) {}

void Embedding::forward(const Context& context, const View1<const int>& tokens,
                        const AnyView& y) const {
  const ArenaScope scope(context.scratch);
  const AnyView partial = tp_.partial(context.scratch, y);
  ops::gather_rows(context.exec, weight_.value(), tokens, partial);
  tp_.leave(context.exec, context.scratch, partial, y);
}

void Embedding::backward(const Context& context, const TokenRuns& runs, const AnyIn& dy) const {
  const ArenaScope scope(context.scratch);
  const AnyIn inside = tp_.enter(context.exec, context.scratch, dy);
  ops::embedding_gradient(context.exec, inside, runs.order, runs.offsets, runs.ids,
                          weight_.grad_to_add_to(context.exec));
}

}  // namespace konclave
