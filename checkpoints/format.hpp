#pragma once

#include "base/dtype.hpp"
#include "base/error.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// Names and numbers of the on-disk format; README.md beside this file describes it.
inline constexpr int kCheckpointFormat = 1;
/// Checksums are of pieces of this many bytes of a flattened tensor.
inline constexpr std::int64_t kChecksumBlock = std::int64_t{1} << 20;

inline constexpr const char* kTensorFile = "tensors.h5";
inline constexpr const char* kDeckFile = "deck.toml";
inline constexpr const char* kStateFile = "state.json";
inline constexpr const char* kProvenanceFile = "provenance.json";
inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kLatestFile = "latest";

/// Groups of tensors: a parameter's name follows.
inline constexpr const char* kModelGroup = "model/";
inline constexpr const char* kMasterGroup = "optimizer/master/";
inline constexpr const char* kExpAvgGroup = "optimizer/exp_avg/";
inline constexpr const char* kExpAvgSqGroup = "optimizer/exp_avg_sq/";
/// What routers keep besides parameters, a row for each MoE layer: (MoE layers, experts).
inline constexpr const char* kExpertBias = "routing/expert_bias";
inline constexpr const char* kPreviousLoad = "routing/previous_load";

/// A tensor of a checkpoint: free of any mapping, with the shape that it has in the whole model.
struct TensorInfo {
  std::string name;  ///< group and parameter: "model/model.norm.weight"
  DType type = DType::fp32;
  std::vector<std::int64_t> shape;

  std::int64_t elements() const;
  std::int64_t bytes() const;
  /// "(8, 12, 32)".
  std::string shape_text() const;
};

/// Where a tensor's bytes lie in tensors.h5, and the checksums of their blocks.
struct StoredTensor {
  TensorInfo info;
  std::int64_t offset = 0;
  std::vector<std::uint64_t> checksums;
};

/// What numpy and Hugging Face call an element type: "bfloat16", "float32", "float64".
std::string_view stored_name(DType type);
std::optional<DType> parse_stored_name(std::string_view name);

/// "step-00001000".
std::string checkpoint_name(std::int64_t step);
/// The step of such a name; nothing for other names.
std::optional<std::int64_t> parse_checkpoint_name(std::string_view name);

/// The checkpoint is of a later format than this program knows: not damaged, so no older one is
/// taken in its place. Carries ExitCode::input, as does what is missing, unreadable or damaged.
class NewerFormat : public Error {
 public:
  explicit NewerFormat(const std::string& text, SourceLocation where = {})
      : Error(text, ExitCode::input, where) {}
};

}  // namespace konclave
