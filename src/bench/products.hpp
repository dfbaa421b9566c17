#pragma once

#include "bench/setup.hpp"
#include "layers/parameter.hpp"
#include "tensor/arena.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// Values of no meaning, within [-1, 1) and none of them tiny. Any type and rank; asynchronous.
void fill_pattern(const ExecSpace& exec, const AnyView& view);

/// How many of `rows` rows each expert gets in call number `call`: uneven, in each call otherwise,
/// and the same wherever it is asked. They add up to `rows`.
std::vector<int> uneven_counts(int experts, std::int64_t rows, std::uint64_t call);

/// The sizes of a product, plain or grouped.
struct ProductSize {
  int out = 0, in = 0;
  std::int64_t rows = 0;  ///< in all
  int experts = 0;        ///< 0: a plain product
  /// Weights that calls go round have so many bytes together at least; 0: there is one weight.
  std::int64_t weight_bytes = 0;
};

/// The three products of a linear layer, or of experts, with weights that are parameters as in
/// training: prepared once, and gradients overwritten, as by the first micro-batch of a step. With
/// several weights, each call takes another one, so that it is in no cache by the time that its
/// turn comes again.
class Products {
 public:
  /// Throws Error(deck) when the backend that `backends` insists on is not there or refuses.
  Products(const BenchSetup& setup, const BackendConfig& backends, const ProductSize& size);

  void run(GemmKind kind);
  /// Of a call, whatever the kind.
  double flops() const;
  /// Which backend runs it.
  std::string backend(GemmKind kind);

 private:
  void make_weights(DType type);
  void make_offsets();
  void run_plain(GemmKind kind, const Parameter& weight);
  void run_grouped(GemmKind kind, const Parameter& weight);

  ExecSpace exec_;
  ProductSize size_;
  MemoryAccount account_;
  Arena values_, gradients_, rows_;
  Operations operations_;
  std::vector<Parameter> weights_;
  std::vector<View1<const int>> offsets_;  ///< of rows of experts, for one call each
  AnyView x_, y_, dx_;
  std::size_t calls_ = 0;
};

}  // namespace konclave
