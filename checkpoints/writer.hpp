#pragma once

#include "checkpoints/format.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace konclave {

/// A tensor to be saved. `fill` is called once, with room for all of its bytes.
struct TensorSource {
  TensorInfo info;
  std::function<void(void* host)> fill;
};

struct CheckpointContent {
  std::int64_t step = 0;
  std::string deck;           ///< the effective deck
  nlohmann::json state;       ///< what the trainer needs to go on
  nlohmann::json provenance;  ///< versions, build, machine
  std::vector<TensorSource> tensors;
};

/// Writes `content` as `checkpoints`/step-NNNNNNNN and points `latest` at it. It appears complete
/// and on the disk, or not at all; a checkpoint of the same step is replaced once the new one is
/// verified. Holds one tensor at a time. Throws Error(io) with the path and the system's reason.
void write_checkpoint(const std::filesystem::path& checkpoints, const CheckpointContent& content);

/// The same at a path of its own, which must be free.
void write_checkpoint_at(const std::filesystem::path& folder, const CheckpointContent& content);

}  // namespace konclave
