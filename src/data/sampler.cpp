#include "data/sampler.hpp"

#include "base/error.hpp"
#include "base/rng.hpp"

#include <string>

namespace konclave {

Sampler::Sampler(std::int64_t size, bool shuffle, std::uint64_t seed)
    : size_(size), shuffle_(shuffle), seed_(seed) {
  require(size > 0, "a sampler needs at least one sequence");
}

std::int64_t Sampler::operator()(std::int64_t sample) const {
  require(sample >= 0, "sample " + std::to_string(sample) + " is negative");
  const std::int64_t epoch = sample / size_, place = sample % size_;
  if (!shuffle_) return place;
  const RandomPermutation order(seed_, "shuffle/" + std::to_string(epoch),
                                static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(order(static_cast<std::uint64_t>(place)));
}

}  // namespace konclave
