#pragma once

#include "ops/op_table.hpp"
#include "parallel/shard.hpp"
#include "parallel/tensor_parallel.hpp"
#include "tensor/arena.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// What a parameter is, wherever and whether it is stored: checkpoints and converters go by it.
struct ParameterSpec {
  std::string name;                 ///< full and free of any mapping: "model.layers.0. ... .weight"
  std::vector<std::int64_t> shape;  ///< of the whole model; linear weights are (Out,In)
  DType type = DType::fp32;
  double init_std = 0;    ///< normal(0, init_std), keyed by (seed, name, index) ...
  double init_value = 0;  ///< ... or this constant when init_std is 0
  /// Of routed experts, the first axis: spread over the ranks of the expert grid, where its
  /// gradients are summed too.
  bool routed = false;
  /// Values are the weight of products and nothing else: nobody reads them as they are.
  bool only_multiplied = false;
};

/// What of a parameter a rank holds, and who has the same.
struct Placement {
  Shard shard;
  bool on_all_tp = false;        ///< every rank of tp holds the same values ...
  bool partial_over_tp = false;  ///< ... and has a part of their gradient
  /// The last stage's copy of a tied embedding: its gradient is summed with the first stage's,
  /// which is the one that counts and is saved.
  bool copy = false;

  /// The `rank`-th part along an axis for each rank of tp.
  static Placement part(const std::vector<std::int64_t>& shape, std::size_t axis,
                        const TensorParallel& tp);
  /// The whole on every rank of tp, used on the rows of the region outside or inside.
  static Placement outside(const std::vector<std::int64_t>& shape, const TensorParallel& tp);
  static Placement inside(const std::vector<std::int64_t>& shape, const TensorParallel& tp);
};

/// Where parameters live. Without `weights` they are described, not stored; without `gradients`
/// they cannot be trained.
struct ParameterStorage {
  Arena* weights = nullptr;
  Arena* gradients = nullptr;
};

/// A parameter of this rank: the shard that it holds of the whole, its values, its gradient
/// (accumulation type, added to by backward) and the forms of it that products want.
///
/// Values that are only multiplied, and packed for every product, need no memory of their own while
/// their master weights are trained: between two updates the packed forms have them. Whoever wants
/// them as they are between two steps has the optimizer write them into the gradient's memory,
/// which nobody needs then; there they are before the first step too.
class Parameter {
 public:
  Parameter(ParameterSpec spec, const ParameterStorage& storage);
  Parameter(ParameterSpec spec, Placement placement, const ParameterStorage& storage);

  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return spec_.name; }
  const Placement& placement() const { return placement_; }
  /// What this rank holds. Values and gradient have its extents as their shape.
  const Shard& shard() const { return placement_.shard; }
  /// Elements on this rank.
  std::int64_t size() const { return shard().elements(); }
  /// Throws where there are no values (has_value).
  const AnyView& value() const;
  const AnyView& grad() const { return grad_; }
  /// Whether values have memory of their own; decided by the first `prepare`.
  bool keeps_values() const { return keeps_values_; }
  /// False once a gradient has taken the place of values without.
  bool has_value() const { return keeps_values_ || holds_ == Holds::values; }
  /// For whoever writes all values: they are there from now on. Ends the gradient of a step.
  const AnyView& new_value();
  /// All values, as they are or packed; then zeros may be among them.
  AnyIn value_in_any_form() const;

  /// Begins a step: the gradient counts as zero from here on, whatever its memory holds. That needs
  /// no pass over the memory, which the first product of the step overwrites.
  void restart_gradient() {
    if (holds_ == Holds::gradient) holds_ = Holds::leftovers;
  }
  /// Shape of the product that is about to add to the gradient: the first one since
  /// restart_gradient overwrites it, and has to write all of it. Where a product is made in parts,
  /// ask once for all of them.
  GemmShape next_gradient_shape() const;
  /// The gradient for a kernel that adds to it: zeros are written if it would be the first.
  const AnyView& grad_to_add_to(const ExecSpace& exec) const;

  /// Random or constant, by the spec; equal for every mapping.
  void initialise(const ExecSpace& exec, std::uint64_t seed);

  /// Packs the values into the forms that the forward product and, when there is a gradient, the
  /// data gradient want. Needed before the first product and after each change of the values; the
  /// first call takes the memory of the forms from the arena of the weights.
  /// `experts` is 0 for a plain weight.
  void prepare(const ExecSpace& exec, Operations& operations, int experts);
  /// Packs all values once more, if they are packed.
  void pack(const ExecSpace& exec, Operations& operations) const;
  const PreparedWeight& prepared(GemmKind kind) const;
  /// Whether there are forms beside the values, which every change of them has to reach: by
  /// `prepare`, or by `pack`, strip by strip.
  bool is_packed() const { return !packed_.empty(); }
  /// New values of some rows of a matrix into all forms; see WeightPacking.
  void pack(const ExecSpace& exec, Operations& operations, std::int64_t matrix, const AnyIn& rows,
            std::int64_t first) const;

  /// Shape of this weight's product of a kind; gradients are in the accumulation type.
  GemmShape gemm_shape(GemmKind kind) const;

 private:
  /// A form, its memory, a row for each matrix, and a product that wants it.
  struct Packed {
    WeightForm form;
    AnyView memory;
    GemmShape product;
  };
  /// What is in the memory of the gradient.
  enum class Holds {
    gradient,   ///< of this step, to be added to
    leftovers,  ///< of an earlier step: the gradient counts as zero
    values      ///< those without memory of their own; so does it here
  };

  void choose_forms(const ExecSpace& exec, Operations& operations, int experts);
  void keep_values(const ExecSpace& exec);
  PreparedWeight make_form(Operations& operations, GemmKind kind);
  AnyView memory_of(const WeightForm& form, const GemmShape& product);

  ParameterSpec spec_;
  Placement placement_;
  Arena* weights_;
  AnyView value_, grad_;
  bool keeps_values_;
  /// Belongs to the memory of grad_, and so changes with it under layers that are const: only who
  /// writes first can know that nobody has.
  mutable Holds holds_;
  int experts_ = 0;
  std::vector<Packed> packed_;
  PreparedWeight forward_, data_gradient_;
};

}  // namespace konclave
