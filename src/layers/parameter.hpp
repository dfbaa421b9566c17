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
  const AnyView& value() const { return value_; }
  const AnyView& grad() const { return grad_; }

  /// Begins a step: the gradient counts as zero from here on, whatever its memory holds. That needs
  /// no pass over the memory, which the first product of the step overwrites.
  void restart_gradient() { restarted_ = true; }
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
  const PreparedWeight& prepared(GemmKind kind) const;

  /// Shape of this weight's product of a kind; gradients are in the accumulation type.
  GemmShape gemm_shape(GemmKind kind) const;

 private:
  /// A form and its memory, a row for each matrix.
  struct Packed {
    WeightForm form;
    AnyView memory;
  };

  const Packed& packed(const WeightForm& form, std::int64_t matrices);
  PreparedWeight pack(const ExecSpace& exec, Operations& operations, GemmKind kind, int experts);

  ParameterSpec spec_;
  Placement placement_;
  Arena* weights_;
  AnyView value_, grad_;
  /// Whether the memory of grad_ has what an earlier step left in it. Belongs to that memory, and
  /// so changes with it under layers that are const: only who writes first can know that nobody
  /// has.
  mutable bool restarted_ = false;
  std::vector<Packed> packed_;
  PreparedWeight forward_, data_gradient_;
};

}  // namespace konclave
