#include "deck/later.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave::deck {
namespace {

using Spellings = std::vector<std::string>;

const Spellings kOff = {"false"};
const Spellings kOne = {"1"};
const Spellings kNone = {"0"};

std::vector<LaterKey> model_keys() {
  std::vector<LaterKey> keys;
  for (const char* name :
       {"q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"}) {
    keys.push_back({std::string("model.mla.") + name, {}, "multi-head latent attention"});
  }
  return keys;
}

std::vector<LaterKey> other_keys() {
  return {
      {"precision.fp8", {"\"off\""}, "FP8"},
      {"precision.fp8_format", {"\"e4m3\"", "\"hybrid\""}, "FP8"},
      {"data.weights", {"[]"}, "a weighted blend of data"},
      {"checkpoint.async", kOff, "saving while training goes on"},
      {"checkpoint.files_per_node", {"0", "1"}, "a checkpoint in several files"},
      {"checkpoint.writer", {"\"files\""}, "collective writing of checkpoints"},
  };
}

std::string leave_it(const Spellings& neutral) {
  return neutral.empty() ? "leave it out" : "leave it at " + join(neutral, " or ");
}

}  // namespace

const std::vector<LaterKey>& later_keys() {
  static const std::vector<LaterKey> kKeys = [] {
    std::vector<LaterKey> all;
    for (const auto& part : {model_keys(), other_keys()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return kKeys;
}

const LaterKey* find_later_key(std::string_view key) {
  for (const LaterKey& later : later_keys()) {
    if (later.key == key) return &later;
  }
  return nullptr;
}

const std::vector<LaterValue>& later_values() {
  static const std::string kPlanner = "the planner that would choose it";
  static const std::vector<LaterValue> kValues = {
      {"parallel.tp", "auto", kPlanner, "give a number of ranks"},
      {"parallel.cp", "auto", kPlanner, "give a number of ranks"},
      {"parallel.pp", "auto", kPlanner, "give a number of stages"},
      {"parallel.vpp", "auto", kPlanner, "give a number of chunks"},
      {"parallel.ep", "auto", kPlanner, "give a number of ranks"},
      {"parallel.etp", "auto", kPlanner, "give a number of ranks"},
      {"batch.micro_size", "auto", "the planner that would choose the micro-batch",
       "give a number of sequences"},
      {"data.kind", "megatron", "reading of Megatron's .bin and .idx files",
       "use \"text\" or \"tokens\""},
      {"data.tokenizer", "*.model", "a SentencePiece tokenizer", "use \"bytes\""},
      {"data.tokenizer", "*.json", "a Hugging Face tokenizer", "use \"bytes\""},
  };
  return kValues;
}

const LaterValue* find_later_value(std::string_view key, std::string_view value) {
  for (const LaterValue& later : later_values()) {
    if (later.key == key && matches_glob(later.value, value)) return &later;
  }
  return nullptr;
}

std::string refuse_later_key(const LaterKey& later, const std::string& text) {
  for (const std::string& neutral : later.neutral) {
    if (text == neutral || text == neutral + ".0") return "";
  }
  return fmt::format("{} = {}: {} is not available in this version; {}", later.key, text,
                     later.feature, leave_it(later.neutral));
}

std::string refuse_later_value(const LaterValue& later, const std::string& text) {
  return fmt::format("{} = {}: {} is not available in this version; {}", later.key, text,
                     later.feature, later.instead);
}

}  // namespace konclave::deck
