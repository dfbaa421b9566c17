#include "run/generation.hpp"

#include "base/rng.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

namespace konclave {

namespace {

/// Draws from softmax(logits / temperature); `uniform` is in [0, 1).
int draw(const std::vector<double>& logits, double temperature, double uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<int>(best - logits.begin());
  std::vector<double> weights;
  double total = 0;
  for (const double logit : logits) {
    weights.push_back(std::exp((logit - *best) / temperature));
    total += weights.back();
  }
  double rest = uniform * total;
  for (std::size_t token = 0; token < weights.size(); ++token) {
    rest -= weights[token];
    if (rest < 0) return static_cast<int>(token);
  }
  return static_cast<int>(best - logits.begin());  // rounding left a rest
}

/// The value of rank 0: an expert on another rank may round the last bit of a logit otherwise.
int of_first_rank(const Transport& world, int mine) {
  const std::vector<std::byte> all = world.gather(std::as_bytes(std::span(&mine, 1)));
  int value = 0;
  std::memcpy(&value, all.data(), sizeof value);
  return value;
}

}  // namespace

std::vector<int> generate(ModelRunner& runner, const std::vector<int>& prompt,
                          const GenerationConfig& config, const std::function<void(int)>& each) {
  require(!prompt.empty(), "a prompt needs at least one token", ExitCode::usage);
  const auto limit = static_cast<std::size_t>(runner.model().definition().model.sequence_length);
  const RandomStream stream(config.seed, "generate");
  std::vector<int> text = prompt, made;
  for (int i = 0; i < config.max_tokens; ++i) {
    const std::size_t length = std::min(text.size(), limit);
    const std::vector<int> context(text.end() - static_cast<std::ptrdiff_t>(length), text.end());
    std::vector<double> logits = runner.next_logits(context);
    logits.resize(
        std::min<std::size_t>(logits.size(), static_cast<std::size_t>(config.vocabulary)));
    const int token = of_first_rank(
        *runner.groups().world,
        draw(logits, config.temperature, stream.uniform(static_cast<std::uint64_t>(i))));
    text.push_back(token);
    made.push_back(token);
    each(token);
  }
  return made;
}

}  // namespace konclave
