#pragma once

#include "layers/config.hpp"
#include "layers/context.hpp"

#include <vector>

namespace konclave {

/// Angle per position of each pair of a head, and the factor on cos and sin.
struct RotaryFrequencies {
  std::vector<double> inverse;  ///< (D/2)
  double attention_factor = 1;
};

/// theta^(-2i/D), stretched by the scaling (formulas of `modeling_rope_utils` in transformers):
///   linear  all divided by factor
///   llama3  long wavelengths divided by factor, short ones kept, a ramp in between
///   yarn    the same by the number of rotations over the old length; cos and sin grow by
///           attention_factor
RotaryFrequencies rotary_frequencies(int head_dim, double theta, const RopeScaling& scaling);

/// Tables of cos and sin for positions below `positions`, made once in double. Shapes (P, D/2).
class Rotary {
 public:
  Rotary(const ExecSpace& exec, const RotaryFrequencies& frequencies, int positions, DType type,
         Arena& arena);

  /// In place on q and k (T, heads*D), each with its own number of heads; `inverse` for gradients.
  void apply(const Context& context, const Sequences& sequences, bool inverse, const AnyView& q,
             const AnyView& k) const;

 private:
  AnyView cosine_, sine_;
};

}  // namespace konclave
