#pragma once

#include "checkpoints/format.hpp"
#include "checkpoints/writer.hpp"
#include "model/config.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace konclave {

/// Where the factor S goes that makes up for the routing weights. An expert is
/// down(silu(gate x) * up x): linear in up and down, but not in gate.
enum class UpcycleScaling {
  exact,    ///< on up_proj and down_proj
  megatron  ///< its cube root on gate_proj, up_proj and down_proj each, as in Megatron-Core
};

/// What becomes of the MLP of a dense layer: G slices of its hidden size, and E/G copies of these.
/// Expert e is slice e % G of copy e / G. The G experts of a copy have the same row in the router
/// and so the same logit, and with equal values going to the lowest expert, K of them (a multiple
/// of G) are whole copies.
struct Upcycling {
  int granularity = 1;                ///< G
  double gate = 1, up = 1, down = 1;  ///< factors on the weights of each expert
};

/// Needs definitions without an upcycling_fault (deck/upcycling_rules.hpp). README.md beside this
/// file derives S and says when the model does what the dense one does.
Upcycling plan_upcycling(const ModelDefinition& dense, const ModelDefinition& moe,
                         UpcycleScaling scaling);

/// A dense model that weights are taken from.
struct DenseModel {
  std::string name;  ///< where it is, for messages
  ModelDefinition definition;
  std::vector<TensorInfo> tensors;  ///< all of them, named as parameters, without a group
  /// `count` elements of the flattened tensor from `first` on, in its type.
  std::function<void(const std::string& tensor, std::int64_t first, std::int64_t count, void* host)>
      read;
};

/// The tensors of `moe`, each in the type of the one that it is made of: experts of the MLPs,
/// routers of the first rows that a new model with this seed would have, all others as they are.
/// Borrows `dense`. Throws Error(input) naming a tensor of it that is missing, of another shape, or
/// without use.
std::vector<TensorSource> upcycled_tensors(const DenseModel& dense, const ModelDefinition& moe,
                                           const Upcycling& how, std::uint64_t seed);

/// Writes them as a checkpoint at `target`, which must be free: step 0, model tensors only. `deck`
/// is the text of its deck.
void upcycle(const DenseModel& dense, const ModelDefinition& moe, const Upcycling& how,
             std::uint64_t seed, const std::filesystem::path& target, const std::string& deck);

}  // namespace konclave
