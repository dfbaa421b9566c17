#include "deck/mapping_rules.hpp"

#include "base/text.hpp"
#include "deck/alternatives.hpp"
#include "deck/rules.hpp"
#include "parallel/pipeline_layout.hpp"
#include "parallel/rank_grids.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace konclave::deck {
namespace {

constexpr int kMostRanks = 4096;  // of one axis

/// A model and how its layers are to be cut.
struct Cut {
  const ModelConfig& model;
  const MoeConfig& moe;
  ParallelConfig parallel;

  int kv_heads_of_a_rank() const { return std::max(1, model.kv_heads() / parallel.tp); }
  bool has_experts() const { return moe.num_experts > 0; }
};

bool heads_fit(const Cut& cut) { return cut.model.num_heads % cut.parallel.tp == 0; }

bool kv_heads_fit(const Cut& cut) {
  const int heads = cut.model.kv_heads(), tp = cut.parallel.tp;
  // As many as query heads: what there is to say, the rule about those says.
  return heads == cut.model.num_heads || heads % tp == 0 || tp % heads == 0;
}

bool dense_ffn_fits(const Cut& cut) {
  return !has_dense_layer(cut.moe) || cut.model.ffn_hidden_size % cut.parallel.tp == 0;
}

bool shared_ffn_fits(const Cut& cut) {
  return cut.moe.shared_ffn_hidden_size % cut.parallel.tp == 0;
}

bool vocabulary_fits(const Cut& cut) { return cut.model.vocab_size >= cut.parallel.tp; }

bool expert_ffn_fits(const Cut& cut) {
  return !cut.has_experts() || cut.moe.ffn_hidden_size % cut.parallel.etp == 0;
}

bool experts_fit(const Cut& cut) { return cut.moe.num_experts % cut.parallel.ep == 0; }

bool experts_are_there(const Cut& cut) {
  return cut.has_experts() || (cut.parallel.ep == 1 && cut.parallel.etp == 1);
}

bool experts_see_tokens_once(const Cut& cut) {
  return !cut.has_experts() || cut.parallel.tp == 1 || cut.parallel.sp;
}

bool pieces_fit(const Cut& cut) {
  return cut.parallel.cp == 1 || cut.model.sequence_length % (2 * cut.parallel.cp) == 0;
}

bool shared_rows_fit(const Cut& cut) {
  return !cut.parallel.sp || !pieces_fit(cut) ||
         cut.model.sequence_length / cut.parallel.cp % cut.parallel.tp == 0;
}

bool exchanged_heads_fit(const Cut& cut) {
  if (cut.parallel.cp_comm != "a2a" || !heads_fit(cut) || !kv_heads_fit(cut)) return true;
  return cut.model.num_heads / cut.parallel.tp % cut.parallel.cp == 0 &&
         cut.kv_heads_of_a_rank() % cut.parallel.cp == 0;
}

/// A rule, and what would do when it is broken, as it stands before "would do".
struct CutRule {
  std::vector<std::string> keys;
  const char* sentence;
  bool (*holds)(const Cut&);
  std::string (*remedy)(const Cut&);
};
const std::vector<CutRule>& cut_rules();

/// Whether a rule holds for `other` and no rule is broken that held before, parallel.sp apart,
/// which has a rule of its own.
bool is_better(const Cut& cut, Cut other, bool (*holds)(const Cut&)) {
  if (!experts_see_tokens_once(other)) other.parallel.sp = true;
  const std::vector<CutRule>& all = cut_rules();
  return holds(other) && std::all_of(all.begin(), all.end(), [&](const CutRule& rule) {
           return rule.holds(other) || !rule.holds(cut);
         });
}

/// "parallel.tp = 1, 2 or 4": sizes that would do, or "".
std::string sizes(const Cut& cut, bool (*holds)(const Cut&), const char* key,
                  int ParallelConfig::*field) {
  const std::string found =
      numbers_that_do(kMostRanks, cut.parallel.*field, [&](std::int64_t size) {
        Cut other = cut;
        other.parallel.*field = static_cast<int>(size);
        return is_better(cut, other, holds);
      });
  return found.empty() ? "" : fmt::format("{} = {}", key, found);
}

/// "A, or B" of those that are not empty.
std::string either(const std::vector<std::string>& remedies) {
  std::vector<std::string> some;
  for (const std::string& remedy : remedies) {
    if (!remedy.empty()) some.push_back(remedy);
  }
  return join(some, ", or ");
}

std::string sizes_of_tp(const Cut& cut, bool (*holds)(const Cut&)) {
  return sizes(cut, holds, "parallel.tp", &ParallelConfig::tp);
}
std::string sizes_of_cp(const Cut& cut, bool (*holds)(const Cut&)) {
  return sizes(cut, holds, "parallel.cp", &ParallelConfig::cp);
}

/// "model.sequence_length = 28 or 32": those nearest to it that can be cut like this.
std::string lengths(const Cut& cut) {
  const std::int64_t pieces = cut.parallel.cp > 1 ? 2 : 1,
                     rows = cut.parallel.sp ? cut.parallel.tp : 1;
  return fmt::format(
      "model.sequence_length = {}",
      multiples(cut.parallel.cp * std::lcm(pieces, rows), cut.model.sequence_length));
}

std::string exchanged_heads_remedy(const Cut& cut) {
  return fmt::format("a rank of tp has {} of queries and {} of keys; {}",
                     cut.model.num_heads / cut.parallel.tp, cut.kv_heads_of_a_rank(),
                     either({"parallel.cp_comm = \"ring\" or \"all_gather\"",
                             sizes_of_cp(cut, exchanged_heads_fit)}));
}

std::string shared_rows_remedy(const Cut& cut) {
  return either(
      {sizes_of_tp(cut, shared_rows_fit), sizes_of_cp(cut, shared_rows_fit), lengths(cut)});
}

std::vector<CutRule> dense_rules() {
  return {
      {{"parallel.tp", "model.num_heads"},
       "model.num_heads must be a multiple of parallel.tp",
       heads_fit,
       [](const Cut& cut) { return sizes_of_tp(cut, heads_fit); }},
      {{"parallel.tp", "model.num_kv_heads"},
       "model.num_kv_heads must be a multiple of parallel.tp, or parallel.tp of it: then several "
       "ranks have the same head",
       kv_heads_fit,
       [](const Cut& cut) { return sizes_of_tp(cut, kv_heads_fit); }},
      {{"parallel.tp", "model.ffn_hidden_size"},
       "model.ffn_hidden_size must be a multiple of parallel.tp where there is a dense layer",
       dense_ffn_fits,
       [](const Cut& cut) { return sizes_of_tp(cut, dense_ffn_fits); }},
      {{"parallel.tp", "moe.shared_ffn_hidden_size"},
       "moe.shared_ffn_hidden_size must be a multiple of parallel.tp",
       shared_ffn_fits,
       [](const Cut& cut) { return sizes_of_tp(cut, shared_ffn_fits); }},
      {{"parallel.tp", "model.vocab_size"},
       "model.vocab_size must not be less than parallel.tp",
       vocabulary_fits,
       [](const Cut& cut) { return sizes_of_tp(cut, vocabulary_fits); }},
  };
}

std::vector<CutRule> expert_rules() {
  return {
      {{"parallel.etp", "moe.ffn_hidden_size"},
       "moe.ffn_hidden_size must be a multiple of parallel.etp",
       expert_ffn_fits,
       [](const Cut& cut) {
         return sizes(cut, expert_ffn_fits, "parallel.etp", &ParallelConfig::etp);
       }},
      {{"parallel.ep", "moe.num_experts"},
       "moe.num_experts must be a multiple of parallel.ep",
       experts_fit,
       [](const Cut& cut) { return sizes(cut, experts_fit, "parallel.ep", &ParallelConfig::ep); }},
      {{"parallel.ep", "parallel.etp", "moe.num_experts"},
       "parallel.ep and parallel.etp above 1 need experts, moe.num_experts above 0",
       experts_are_there,
       [](const Cut&) { return std::string("parallel.ep = 1 and parallel.etp = 1"); }},
      {{"parallel.sp", "parallel.tp", "moe.num_experts"},
       "with experts, parallel.tp above 1 needs parallel.sp = true: otherwise all ranks of tp "
       "would send the same tokens",
       experts_see_tokens_once,
       [](const Cut&) { return std::string("parallel.sp = true, or parallel.tp = 1"); }},
  };
}

std::vector<CutRule> sequence_rules() {
  return {
      {{"parallel.cp", "model.sequence_length"},
       "with parallel.cp above 1, model.sequence_length must be a multiple of twice parallel.cp, "
       "because each rank has two pieces of a sequence",
       pieces_fit,
       [](const Cut& cut) {
         return either({sizes_of_cp(cut, pieces_fit), lengths(cut)});
       }},
      {{"parallel.sp", "parallel.tp", "parallel.cp", "model.sequence_length"},
       "with parallel.sp, model.sequence_length / parallel.cp must be a multiple of parallel.tp, "
       "whose ranks share out its rows",
       shared_rows_fit,
       shared_rows_remedy},
      {{"parallel.cp_comm", "parallel.cp", "parallel.tp", "model.num_heads", "model.num_kv_heads"},
       "with parallel.cp_comm = \"a2a\", the heads that a rank of tp has, of queries as of keys, "
       "must be a multiple of parallel.cp",
       exchanged_heads_fit,
       exchanged_heads_remedy},
  };
}

const std::vector<CutRule>& cut_rules() {
  static const std::vector<CutRule> kRules = [] {
    std::vector<CutRule> all;
    for (const auto& part : {dense_rules(), expert_rules(), sequence_rules()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return kRules;
}

void declare_pipeline_rules(Schema& schema, const ParallelConfig& parallel,
                            const ModelConfig& model) {
  schema.whole_rule(
      RuleScope::mapping,
      {"parallel.pp", "parallel.vpp", "parallel.layout", "parallel.first_stage_layers",
       "parallel.last_stage_layers", "model.num_layers"},
      "the stages of the pipeline have all layers: parallel.layout names each once, in a multiple "
      "of parallel.pp parts, or else what parallel.first_stage_layers and "
      "parallel.last_stage_layers leave of model.num_layers is shared evenly by the other stages, "
      "and the layers of each stage by parallel.vpp, which above 1 needs parallel.pp above 1",
      [&] { return layout_fault(parallel, model.num_layers); });
  schema.rule(RuleScope::training,
              {"parallel.vpp_group_size", "parallel.pp", "parallel.vpp", "parallel.layout"},
              "with several chunks on a stage, parallel.vpp_group_size must not be less than "
              "parallel.pp",
              [&]() -> std::string {
                const int group = parallel.vpp_group_size;
                if (group == 0 || group >= parallel.pp) return "";
                if (!layout_fault(parallel, model.num_layers).empty()) return "";
                if (make_pipeline_layout(parallel, model.num_layers).chunks() == 1) return "";
                return fmt::format("parallel.vpp_group_size = {} would do, or 0, which takes it",
                                   parallel.pp);
              });
  schema.whole_rule(
      RuleScope::training,
      {"parallel.order", "parallel.tp", "parallel.cp", "parallel.pp", "parallel.ep",
       "parallel.etp"},
      "parallel.order must name every axis larger than 1, and pp last where it is larger than 1, "
      "unless dp and edp are the same",
      [&]() -> std::string {
        const std::string fault = order_fault(parallel, smallest_ranks(parallel));
        return fault.empty() ? "" : "parallel.order" + fault;
      });
}

}  // namespace

void declare_mapping_rules(Schema& schema, const Deck& deck) {
  const ModelDefinition& definition = deck.definition;
  const ParallelConfig& parallel = deck.parallel;
  for (const CutRule& rule : cut_rules()) {
    schema.rule(RuleScope::mapping, rule.keys, rule.sentence, [&]() -> std::string {
      const Cut cut{definition.model, definition.moe, parallel};
      return rule.holds(cut) ? "" : rule.remedy(cut) + " would do";
    });
  }
  declare_pipeline_rules(schema, parallel, definition.model);
}

}  // namespace konclave::deck

namespace konclave {

std::string mapping_fault(const ModelDefinition& definition, const ParallelConfig& parallel) {
  Deck deck;
  const deck::Schema schema(deck);
  deck.definition = definition;
  deck.parallel = parallel;
  std::vector<std::string> complaints;
  for (const deck::Rule& rule : schema.rules()) {
    if (rule.scope != deck::RuleScope::mapping) continue;
    const std::string fault = rule.remedy();
    if (fault.empty()) continue;
    std::vector<std::string> values;
    for (const std::string& key : rule.keys) {
      values.push_back(fmt::format("{} = {}", key, schema.find(key)->form().write()));
    }
    complaints.push_back(rule.complaint(fault, values));
  }
  return join(complaints, "\n");
}

}  // namespace konclave
