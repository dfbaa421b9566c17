#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <string>

namespace konclave {

/// Rows of a micro-batch sorted by token (ops::embedding_gradient): run r is the rows of token
/// ids(r).
struct TokenRuns {
  View1<const int> order, offsets, ids;
};

/// y[t,:] = W[token[t],:].   Shapes  tokens (T)   W (V,H)   y (T,H).
class Embedding {
 public:
  Embedding(const std::string& name, int vocabulary, int hidden, DType type, double init_std,
            const ParameterStorage& storage);

  void forward(const Context& context, const View1<const int>& tokens, const AnyView& y) const;
  /// Adds to the gradient of W.
  void backward(const Context& context, const TokenRuns& runs, const AnyIn& dy) const;

  /// The same matrix serves as head when embeddings are tied.
  Parameter& weight() { return weight_; }
  const Parameter& weight() const { return weight_; }

  template <typename Visitor> void visit_parameters(Visitor&& visit) { visit(weight_); }

 private:
  Parameter weight_;
};

}  // namespace konclave
