#pragma once

#include "bench/limits.hpp"
#include "bench/products.hpp"
#include "bench/rounds.hpp"

#include <memory>
#include <string>
#include <vector>

namespace konclave {

/// Backends that run all three products of a size, most preferred first: the one that is wanted, or
/// with "auto" all but `reference`, which is what others are judged by. Each refusal is a sentence
/// of `refusals`.
std::vector<std::string> gemm_backends(const BenchSetup& setup, const std::string& wanted, int out,
                                       int in, std::vector<std::string>& refusals);

/// The limits of the machine, measured beside whatever else is timed: the forward product of a few
/// large sizes by every backend, and an update of memory in place.
class MachineProbes {
 public:
  /// Adds its pieces. Collective: backends that are much slower than the best are left out.
  MachineProbes(const BenchSetup& setup, Rounds& rounds);

  /// Backends that came near the best one.
  const std::vector<std::string>& promising() const { return promising_; }
  /// When the rounds are over.
  MachineLimits limits(const Rounds& rounds) const;

 private:
  struct Candidate {
    std::string backend, name;
    std::unique_ptr<Products> products;
    std::size_t piece = 0;
  };

  /// One of each backend that takes the size. Collective.
  static std::vector<Candidate> make_candidates(const BenchSetup& setup, const ProductSize& size);
  void add_products(const BenchSetup& setup, Rounds& rounds);
  void add_memory(const BenchSetup& setup, Rounds& rounds);

  std::vector<std::string> promising_;
  std::vector<Candidate> candidates_;
  Kokkos::View<double*, MemSpace> target_, source_;
  std::size_t memory_piece_ = 0;
};

}  // namespace konclave
