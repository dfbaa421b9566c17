#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace konclave {

/// A metric over the steps where it is a finite number.
struct Curve {
  std::vector<std::int64_t> step;
  std::vector<double> value;

  std::size_t size() const { return step.size(); }
  void add(std::int64_t at, double is) {
    step.push_back(at);
    value.push_back(is);
  }
};

/// At most `most` >= 4 of its points, for a picture: the first, the last, and of each stretch of
/// steps between them the least and the greatest. All of them where there are no more.
Curve thinned(const Curve& curve, std::size_t most);

}  // namespace konclave
