#pragma once

#include "checkpoints/reader.hpp"
#include "comm/communicator.hpp"
#include "model/config.hpp"
#include "parallel/config.hpp"
#include "train/trainer.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace konclave {

/// Weights to use: a Konclave checkpoint, a run's folder or its checkpoints folder (the newest good
/// one is taken), or a Hugging Face folder.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  /// Collective: the same on all ranks. Rank 0 alone looks for the newest good checkpoint of a run,
  /// which takes reading all of it. `sequence_length` is the one that a Hugging Face model is
  /// wanted for; 0 takes the model's own maximum. Throws AgreedError(input) when there is nothing
  /// of the kind at `path`.
  static std::unique_ptr<ModelSource> open(const Communicator& world,
                                           const std::filesystem::path& path,
                                           int sequence_length = 0);

  /// The model, with "section.key=value" overrides.
  virtual ModelDefinition definition(const std::vector<std::string>& overrides) const = 0;
  /// How to spread it, as `definition`, over `ranks` ranks, whatever mapping it was trained under:
  /// by [parallel] of the overrides. Without parallel.ep there, experts are spread over the largest
  /// number of ranks that both the training used for them and these ranks can be cut into; without
  /// parallel.sp, an MoE model with tp > 1 has it. Throws Error(deck) when a rule of the mapping is
  /// broken.
  virtual ParallelConfig parallel(const ModelDefinition& definition,
                                  const std::vector<std::string>& overrides, int ranks) const = 0;
  /// Name of the tokenizer that its tokens are of: data.tokenizer of the overrides, or of the deck
  /// of a run that trained on text. Throws Error(input) for a model that does not say.
  virtual std::string tokenizer(const std::vector<std::string>& overrides) const = 0;
  /// Fills the runner's weights and prepares them. Throws Error(input) naming tensor and file when
  /// one is missing or has another shape.
  virtual void load(ModelRunner& runner) const = 0;
};

/// The checkpoint at `path`, or the newest good one of a run's folder or its checkpoints folder.
Checkpoint open_checkpoint(const std::filesystem::path& path);

}  // namespace konclave
