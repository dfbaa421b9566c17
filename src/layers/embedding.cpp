#include "layers/embedding.hpp"

#include "ops/embedding.hpp"

namespace konclave {

Embedding::Embedding(const std::string& name, int vocabulary, int hidden, DType type,
                     double init_std, const ParameterStorage& storage)
    : weight_({name + ".weight", {vocabulary, hidden}, type, init_std}, storage) {}

void Embedding::forward(const Context& context, const View1<const int>& tokens,
                        const AnyView& y) const {
  ops::gather_rows(context.exec, weight_.value(), tokens, y);
}

void Embedding::backward(const Context& context, const TokenRuns& runs, const AnyIn& dy) const {
  ops::embedding_gradient(context.exec, dy, runs.order, runs.offsets, runs.ids, weight_.grad());
}

}  // namespace konclave
