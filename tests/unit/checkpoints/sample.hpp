#pragma once

#include "checkpoints/writer.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// A tensor and its bytes.
struct SampleTensor {
  TensorInfo info;
  std::vector<std::byte> bytes;
};

/// Any bits at all, other ones for another seed: NaNs and subnormals are to come back as they went.
std::vector<std::byte> random_bytes(std::string_view purpose, std::int64_t count,
                                    std::uint64_t seed = 1);

/// One tensor of each type and rank; "model/large" has two checksum blocks, the last one short.
std::vector<SampleTensor> sample_tensors(std::uint64_t seed = 1);

/// A checkpoint of these tensors, which it borrows.
CheckpointContent content_of(std::int64_t step, const std::vector<SampleTensor>& tensors);

/// Saves sample_tensors(step) as a checkpoint of that step and gives back its folder.
std::filesystem::path save_sample(const std::filesystem::path& checkpoints, std::int64_t step);

void flip_bit(const std::filesystem::path& path, std::int64_t byte, int bit);

/// All names in a folder, hidden ones too, in alphabetical order and separated by blanks.
std::string names_in(const std::filesystem::path& folder);

}  // namespace konclave
