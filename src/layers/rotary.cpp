#include "layers/rotary.hpp"

#include "ops/rope.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace konclave {

namespace {

constexpr double kTurn = 2 * std::numbers::pi;

void scale_llama3(std::vector<double>& inverse, const RopeScaling& scaling) {
  const double old_length = scaling.original_max_position_embeddings;
  for (double& frequency : inverse) {
    const double turns = old_length * frequency / kTurn;  // over the old length
    if (turns < scaling.low_freq_factor) {
      frequency /= scaling.factor;
    } else if (turns <= scaling.high_freq_factor) {
      const double share =
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      frequency *= (1 - share) / scaling.factor + share;
    }
  }
}

void scale_yarn(std::vector<double>& inverse, double theta, const RopeScaling& scaling) {
  const double size = 2.0 * static_cast<double>(inverse.size());
  // The (fractional) pair that makes `turns` turns over the old length.
  const auto pair_of = [&](double turns) {
    return size * std::log(scaling.original_max_position_embeddings / (turns * kTurn)) /
           (2 * std::log(theta));
  };
  const double low = std::max(0.0, std::floor(pair_of(scaling.beta_fast)));
  double high = std::min(size - 1, std::ceil(pair_of(scaling.beta_slow)));
  if (high == low) high += 0.001;  // transformers does the same
  for (std::size_t i = 0; i < inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] *= ramp / scaling.factor + (1 - ramp);
  }
}

}  // namespace

RotaryFrequencies rotary_frequencies(int head_dim, double theta, const RopeScaling& scaling) {
  RotaryFrequencies frequencies;
  for (int i = 0; i < head_dim / 2; ++i) {
    frequencies.inverse.push_back(std::pow(theta, -2.0 * i / head_dim));
  }
  if (scaling.type == "linear") {
    for (double& frequency : frequencies.inverse) frequency /= scaling.factor;
  } else if (scaling.type == "llama3") {
    scale_llama3(frequencies.inverse, scaling);
  } else if (scaling.type == "yarn") {
    scale_yarn(frequencies.inverse, theta, scaling);
    const double grown = scaling.factor > 1 ? 0.1 * std::log(scaling.factor) + 1 : 1;
    frequencies.attention_factor = scaling.attention_factor > 0 ? scaling.attention_factor : grown;
  } else {
    require(scaling.type == "none", "unknown rope scaling " + scaling.type);
  }
  return frequencies;
}

Rotary::Rotary(const ExecSpace& exec, const RotaryFrequencies& frequencies, int positions,
               DType type, Arena& arena) {
  const auto half = static_cast<std::int64_t>(frequencies.inverse.size());
  std::vector<double> cosine, sine;
  for (int position = 0; position < positions; ++position) {
    for (const double frequency : frequencies.inverse) {
      const double angle = position * frequency;
      cosine.push_back(frequencies.attention_factor * std::cos(angle));
      sine.push_back(frequencies.attention_factor * std::sin(angle));
    }
  }
  cosine_ = arena.make(accum_type(type), positions, half);
  sine_ = arena.make(accum_type(type), positions, half);
  from_doubles(exec, cosine, cosine_);
  from_doubles(exec, sine, sine_);
}

void Rotary::apply(const Context& context, const Sequences& sequences, bool inverse,
                   const AnyView& q, const AnyView& k) const {
  ops::rotate(context.exec, sequences.positions, cosine_, sine_, inverse, q, k);
}

}  // namespace konclave
