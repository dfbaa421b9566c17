#include "checkpoints/upcycle.hpp"

#include "app/commands.hpp"
#include "checkpoints/hugging_face.hpp"
#include "deck/deck.hpp"
#include "deck/upcycling_rules.hpp"
#include "run/model_source.hpp"

#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace konclave::app {

namespace {

DenseModel from_checkpoint(const std::string& path) {
  const auto source = std::make_shared<const Checkpoint>(open_checkpoint(path));
  DenseModel dense;
  dense.name = source->folder().string();
  dense.definition =
      read_deck_text(source->deck(), (source->folder() / kDeckFile).string(), {}, DeckUse::model)
          .definition;
  const std::string group = kModelGroup;
  for (TensorInfo info : source->manifest().tensors) {
    if (!info.name.starts_with(group)) continue;
    info.name.erase(0, group.size());
    dense.tensors.push_back(info);
  }
  dense.read = [source, group](const std::string& tensor, std::int64_t first, std::int64_t count,
                               void* host) { source->read(group + tensor, first, count, host); };
  return dense;
}

DenseModel from_hugging_face(const std::string& path, int sequence_length) {
  const auto source = std::make_shared<const HfFolder>(path, sequence_length);
  DenseModel dense{path, source->definition(), source->tensors(), {}};
  std::map<std::string, DType> types;
  for (const TensorInfo& info : dense.tensors) types.emplace(info.name, info.type);
  dense.read = [source, types](const std::string& tensor, std::int64_t first, std::int64_t count,
                               void* host) {
    source->read(tensor, first, count, types.at(tensor), host);
  };
  return dense;
}

/// The whole deck when it is one to train by, so that the model's tokens are known; else what it
/// says of the model, because defaults are no knowledge.
std::string deck_of_checkpoint(Deck deck) {
  if (deck.data.files.empty()) {
    std::erase_if(deck.values, [](const DeckValue& value) { return !value.defines_model; });
  }
  return effective_deck(deck);
}

/// Nothing approximate in silence.
std::string likeness(const MoeConfig& moe, const Upcycling& how) {
  if (how.gate != 1) {
    return "its logits are near the dense model's: gate_proj is scaled too, and silu is not "
           "linear; --scaling exact leaves it alone";
  }
  if (moe.pre_softmax && moe.top_k < moe.num_experts) {
    return "its logits are near the dense model's, the nearer the more evenly the router scores "
           "(a smaller model.init_std): moe.pre_softmax weighs by the softmax over all experts";
  }
  return "its logits are the dense model's to rounding";
}

}  // namespace

ExitCode run_upcycle(const Arguments& arguments, spdlog::logger& log) {
  const Deck deck = read_deck(arguments.deck, arguments.overrides, DeckUse::model);
  const ModelDefinition& moe = deck.definition;
  const bool is_hugging_face =
      std::filesystem::exists(std::filesystem::path(arguments.source) / "config.json");
  const DenseModel dense = is_hugging_face
                               ? from_hugging_face(arguments.source, moe.model.sequence_length)
                               : from_checkpoint(arguments.source);
  require(dense.definition.num_moe_layers() == 0,
          dense.name + " has experts already; a dense model is wanted", ExitCode::input);
  const std::string fault = upcycling_fault(dense.definition, moe);
  require(fault.empty(), fault, ExitCode::deck);

  const Upcycling how = plan_upcycling(
      dense.definition, moe,
      arguments.scaling == "megatron" ? UpcycleScaling::megatron : UpcycleScaling::exact);
  upcycle(dense, moe, how, deck.run.seed, arguments.target, deck_of_checkpoint(deck));
  log.info(
      "{} is in {}: {} MoE layers, {} copies of the dense MLP in {} slices each; gate_proj times "
      "{}, up_proj times {}, down_proj times {}",
      dense.name, arguments.target, moe.num_moe_layers(), moe.moe.num_experts / how.granularity,
      how.granularity, how.gate, how.up, how.down);
  log.info(likeness(moe.moe, how));
  return ExitCode::done;
}

}  // namespace konclave::app
