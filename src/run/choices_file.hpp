#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace konclave {

/// Of which model the experts in a routing_choices.h5 are.
struct ChoicesShape {
  std::int64_t sequence_length = 0, layers = 0, top_k = 0;  ///< MoE layers
  std::int64_t experts = 0;

  /// Numbers that a sample has.
  std::int64_t per_sample() const { return sequence_length * layers * top_k; }
};

/// Writes routing_choices.h5 of a run's folder: dataset `experts` (samples, sequence, MoE layers,
/// K), uint16, a sample being a sequence in the order in which the run trains on them. Its
/// attributes num_experts, top_k, sequence_length and format_version say what it is. Calls HDF5 on
/// the I/O thread and waits for it.
class ChoicesFile {
 public:
  ChoicesFile(std::filesystem::path path, const ChoicesShape& shape);

  /// For a run that goes on behind so many samples: later ones are dropped. Makes a new file at 0.
  /// Throws Error(io), and Error(input) when the file has less or is another model's.
  void open(std::int64_t samples);
  /// Keeps whole samples in memory for the next flush.
  void add(const std::vector<std::uint16_t>& choices);
  std::int64_t pending_bytes() const;
  /// Writes what is kept. Throws Error(io) when that fails: it is still kept then.
  void flush();

 private:
  std::filesystem::path path_;
  ChoicesShape shape_;
  std::int64_t samples_ = 0;  ///< in the file
  std::vector<std::uint16_t> pending_;
};

/// How many samples a file has. Throws Error(input) where it cannot be read or is no such file,
/// Error(deck) when it is of another model than `shape`.
std::int64_t count_samples(const std::filesystem::path& path, const ChoicesShape& shape);

/// The experts (count, sequence, layers, K) of samples from the `first` on. Throws Error(input)
/// also where a token's are not K different ones of the model's.
std::vector<std::uint16_t> read_choices(const std::filesystem::path& path,
                                        const ChoicesShape& shape, std::int64_t first,
                                        std::int64_t count);

}  // namespace konclave
