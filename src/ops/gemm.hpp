#pragma once

#include "tensor/view.hpp"

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace konclave {

/// The three products of a linear layer y = x W^T with W (Out,In), x (T,In), y (T,Out).
enum class GemmKind : std::uint8_t {
  forward,         ///< y  (T,Out)  = x  W^T
  data_gradient,   ///< dx (T,In)   = dy W
  weight_gradient  ///< dW (Out,In) = dy^T x
};
std::string_view name_of(GemmKind kind);

/// What a backend must know to accept or refuse a product; the number of rows T is left open.
struct GemmShape {
  GemmKind kind = GemmKind::forward;
  int out = 0, in = 0;
  DType type = DType::fp32;    ///< of x, dy and W
  DType result = DType::fp32;  ///< of the output
  bool accumulate = false;     ///< adds to the output instead of overwriting it

  auto operator<=>(const GemmShape&) const = default;
};
std::string describe(const GemmShape& shape);

/// What a weight is packed into for a kind of product. Products with equal forms share one.
struct WeightForm {
  std::string_view layout = {};  ///< whose and which, "onednn.fp32"; "": the weight as stored
  DType type = DType::fp32;      ///< of the form's elements
  std::int64_t elements = 0;     ///< for one matrix (Out,In)

  bool as_stored() const { return layout.empty(); }
  bool operator==(const WeightForm&) const = default;
};

/// How an offer wants weights; without functions, as they are stored.
struct WeightPacking {
  WeightForm (*form)(const GemmShape& shape) = nullptr;
  /// Writes what the form of a matrix (Out,In) has of `rows` (n,In), its rows from `first` on, into
  /// `to`, which is the whole form. `first` is a multiple of kRows, and so is n unless these are
  /// the last rows, which write what the form has behind them too. Asynchronous on `exec`.
  void (*pack)(const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows, std::int64_t first,
               const AnyView& to) = nullptr;
  static constexpr std::int64_t kRows = 32;

  WeightForm form_for(const GemmShape& shape) const {
    return form == nullptr ? WeightForm() : form(shape);
  }
};

/// A weight as a product takes it. The memory belongs to the parameter; the optimizer's update
/// makes the packed form stale, and packs it anew (Parameter::pack).
struct PreparedWeight {
  AnyIn weight;                  ///< as stored, (Out,In) or (L,Out,In); may be without memory
  AnyIn packed = {};             ///< (1,elements) or (L,elements); empty: as stored only
  std::string_view layout = {};  ///< of `packed`
  std::int64_t first_row = 0;    ///< of the matrix that was packed, where `weight` begins

  /// One matrix of (L,Out,In).
  PreparedWeight matrix(std::int64_t index) const;
  /// Some rows of a matrix (Out,In), as a weight of their own. Every layout can be cut before a
  /// multiple of kRows. The packed form stays the whole one.
  PreparedWeight rows(std::int64_t first, std::int64_t count) const;
  static constexpr std::int64_t kRows = 256;
};

struct GemmOperands {
  AnyIn a;                                 ///< forward: x; both gradients: dy
  const PreparedWeight* weight = nullptr;  ///< forward and data_gradient
  AnyIn b;                                 ///< weight_gradient: x
  AnyView c;                               ///< the output
  AnyView workspace;                       ///< at least `workspace` bytes, as fp32 elements
};

/// A backend's offer for a product. Refusals are sentences that say what it cannot do; "" accepts.
struct GemmOffer {
  std::string_view backend;
  std::string (*refuses)(const GemmShape& shape);
  /// Bytes of scratch memory for `rows` rows.
  std::size_t (*workspace)(const GemmShape& shape, std::int64_t rows);
  /// Asynchronous on `exec`; T may be 0 (then forward and data_gradient do nothing, and
  /// weight_gradient writes zeros unless it accumulates).
  void (*run)(const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands);
  /// What a user should know of how an accepted problem is run; "" when it is run as it is.
  std::string (*remark)(const GemmShape& shape) = nullptr;
  WeightPacking packing = {};
};

}  // namespace konclave
