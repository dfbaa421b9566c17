#pragma once

#include "model/transformer.hpp"
#include "parallel/groups.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// Elements first .. first + count - 1 of a flattened parameter of this rank.
struct ParameterPiece {
  Parameter* parameter = nullptr;
  std::int64_t first = 0, count = 0;

  /// These elements of something that is shaped like the parameter, or flat.
  AnyView of(const AnyView& whole) const;
};

/// Elements of one or several parameters, one behind the other, whose gradients are summed over the
/// same ranks, have one type, and travel together.
struct GradBucket {
  /// Over which ranks: of the experts those that hold the same ones, of what every rank of tp holds
  /// and uses on rows of its own all that have the layer, of the rest those with the same part.
  enum class Over { dp_cp, tp_dp_cp, expert_dp };

  Over over;
  Groups::Group group;
  std::vector<ParameterPiece> pieces;
  std::int64_t elements = 0;
  /// Of several small parameters, the last and the first of which may have parts in other such
  /// ones.
  bool shared = false;
  /// Of a tied embedding, of which the first and the last stage have equal buckets.
  bool tied = false;

  DType gradient_type() const { return pieces.front().parameter->grad().type(); }
  DType value_type() const { return pieces.front().parameter->spec().type; }
  /// Whether it is a parameter, or a part of one, that needs no copy to travel.
  bool in_place() const { return pieces.size() == 1; }

  /// How many elements each rank of the group owns, those of rank 0 first: as equal as can be in
  /// whole lines of a cache. Nobody asks where a parameter ends.
  std::vector<std::int64_t> shares() const;
  /// What this rank owns.
  std::vector<ParameterPiece> own() const;
};

/// All parameters of this rank, the last ones first: in which backward completes gradients.
std::vector<Parameter*> backward_order(Transformer& model);

/// All parameters of this rank, each in one bucket or in several that follow each other: the last
/// parameters first, as backward comes by them. Large ones fill buckets of their own, of at most
/// parallel.bucket_size elements; small ones, to which a message each would take longer than
/// copying them, come together behind those. Experts have slots of equal size on all ranks, so that
/// buckets and shares are the same wherever an expert is.
std::vector<GradBucket> make_grad_buckets(Transformer& model, const Groups& groups,
                                          std::int64_t bucket_size);

}  // namespace konclave
