#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <string>

namespace konclave {

/// Rows of a micro-batch sorted by token (ops::embedding_gradient): run r is the rows of token
/// ids(r). With a part of the vocabulary: of the tokens in this part, ids being numbers within it.
struct TokenRuns {
  View1<const int> order, offsets, ids;
};

/// y[t,:] = W[token[t],:]. Each rank of tp has the `rank`-th part of the vocabulary, of a size of
/// its own where tp does not divide it; a row is the sum over tp of what the ranks make of it,
/// which is zeros for all but one. Shapes  tokens (T), of the region inside   W (V,H), of which
/// this rank has a part of the rows
///         y, dy (T,H), of the region outside.
class Embedding {
 public:
  Embedding(const std::string& name, int vocabulary, int hidden, DType type, double init_std,
            const TensorParallel& tp, const ParameterStorage& storage);

  /// `tokens` are numbers within this rank's part, and below 0 for tokens of other parts.
  void forward(const Context& context, const View1<const int>& tokens, const AnyView& y) const;
  /// Adds to the gradient of W.
  void backward(const Context& context, const TokenRuns& runs, const AnyIn& dy) const;

  /// The same matrix serves as head when embeddings are tied.
  Parameter& weight() { return weight_; }
  const Parameter& weight() const { return weight_; }

  template <typename Visitor> void visit_parameters(Visitor&& visit) { visit(weight_); }

 private:
  TensorParallel tp_;
  Parameter weight_;
};

}  // namespace konclave
