#pragma once

#include "layers/mlp.hpp"
#include "layers/parameter.hpp"
#include "parallel/groups.hpp"

#include <optional>
#include <string>

namespace konclave {

/// The experts that every token passes, as one dense SwiGLU MLP of their widths together:
///   y[t] += g[t] mlp(x[t]),   g[t] = sigmoid(x[t] . w) with a gate, else 1
/// The ranks of tp share the MLP by its ffn size, and have the gate whole.
/// Shapes  x, y (T,H) of the rows outside   w (1,H).
class SharedExperts {
 public:
  struct Saved {
    Mlp::Saved mlp;
    AnyIn x;
    /// With a gate: its value (T), and the MLP's output (T,H), which would be another three
    /// products to make again for the gate's gradient.
    AnyView gate, output;
  };

  /// Parameters NAME.{gate_proj,up_proj,down_proj}.weight and, with a gate, NAME.gate.weight.
  SharedExperts(const std::string& name, const MlpConfig& config, bool gated, const Groups& groups,
                const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Adds to y. `x` has to live until backward.
  void forward(const Context& context, const AnyIn& x, Saved& saved, const AnyView& y) const;
  /// Forward in two parts: the MLP, whose output stays in memory that lives until the second or,
  /// with a gate, until backward; and what is added to y.
  void start(const Context& context, const AnyIn& x, const AnyView& output, Saved& saved) const;
  void add(const Context& context, Saved& saved, const AnyView& y) const;
  bool gated() const { return gate_.has_value(); }
  /// Overwrites dx, which must not be dy; adds to the parameters' gradients. Once for each forward.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    mlp_.visit_parameters(visit);
    if (gate_) visit(*gate_);
  }

 private:
  Mlp mlp_;
  std::optional<Parameter> gate_;
};

}  // namespace konclave
