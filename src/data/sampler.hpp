#pragma once

#include <cstdint>

namespace konclave {

/// Which sequence is trained on next: a function of the number of samples consumed so far, without
/// state. That number alone is the data position in a checkpoint, whatever the ranks or the batch.
class Sampler {
 public:
  /// `size` > 0 sequences; with `shuffle` each epoch has an order of its own, drawn from `seed`.
  Sampler(std::int64_t size, bool shuffle, std::uint64_t seed);

  /// The sequence of sample `sample` >= 0. Any `size` samples from a multiple of `size` on are all
  /// the sequences once: one epoch.
  std::int64_t operator()(std::int64_t sample) const;

 private:
  std::int64_t size_;
  bool shuffle_;
  std::uint64_t seed_;
};

}  // namespace konclave
