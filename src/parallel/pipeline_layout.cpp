#include "parallel/pipeline_layout.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "parallel/layout_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace konclave {
namespace {

// Named in errors.
constexpr const char* kFirst = "parallel.first_stage_layers";
constexpr const char* kLast = "parallel.last_stage_layers";

using Field = int ParallelConfig::*;

std::vector<int> divisors(int number) {
  std::vector<int> found;
  for (int i = 1; i <= number; ++i) {
    if (number % i == 0) found.push_back(i);
  }
  return found;
}

std::string one_stage_fault(const ParallelConfig& parallel) {
  if (parallel.pp > 1) return "";
  if (parallel.vpp > 1) {
    return fmt::format(
        "parallel.vpp = {} needs more than one stage, but parallel.pp = 1; parallel.vpp = 1 or "
        "parallel.pp = 2 would do",
        parallel.vpp);
  }
  if (parallel.first_stage_layers > 0 || parallel.last_stage_layers > 0) {
    return fmt::format(
        "{} = {} and {} = {} need more than one stage, but parallel.pp = 1; 0 and 0 would do",
        kFirst, parallel.first_stage_layers, kLast, parallel.last_stage_layers);
  }
  return "";
}

/// Layers of each stage, or none where the numbers don't part num_layers.
std::vector<int> stage_layers(const ParallelConfig& parallel, int num_layers) {
  const int first = parallel.first_stage_layers, last = parallel.last_stage_layers;
  const int others = parallel.pp - (first > 0 ? 1 : 0) - (last > 0 ? 1 : 0);
  if (first > num_layers || last > num_layers - first) return {};
  const int rest = num_layers - first - last;
  // A stage without layers takes part in every micro-batch for nothing; only a layout may want it.
  const bool parts = others == 0 ? rest == 0 : rest >= others && rest % others == 0;
  if (!parts) return {};
  std::vector<int> layers(static_cast<std::size_t>(parallel.pp), others == 0 ? 0 : rest / others);
  if (first > 0) layers.front() = first;
  if (last > 0) layers.back() = last;
  return layers;
}

int common_divisor(const std::vector<int>& layers) {
  return std::accumulate(layers.begin(), layers.end(), 0,
                         [](int a, int b) { return std::gcd(a, b); });
}

bool is_split(const ParallelConfig& parallel, int num_layers) {
  if (!one_stage_fault(parallel).empty()) return false;
  const std::vector<int> layers = stage_layers(parallel, num_layers);
  return !layers.empty() && common_divisor(layers) % parallel.vpp == 0;
}

/// Values of a key, from 1 to num_layers, with which the layers can be split.
std::vector<int> values_that_do(ParallelConfig parallel, Field field, int num_layers) {
  std::vector<int> values;
  for (int value = 1; value <= num_layers; ++value) {
    parallel.*field = value;
    if (is_split(parallel, num_layers)) values.push_back(value);
  }
  return values;
}

/// "KEY = 2 or 5", the nearest of such values; "" when there is none.
std::string nearest_that_do(const ParallelConfig& parallel, const char* key, Field field,
                            int num_layers) {
  const std::vector<int> all = values_that_do(parallel, field, num_layers);
  const auto above = std::lower_bound(all.begin(), all.end(), parallel.*field);
  std::vector<int> near;
  if (above != all.begin()) near.push_back(*(above - 1));
  if (above != all.end()) near.push_back(*above);
  return near.empty() ? "" : fmt::format("{} = {}", key, any_of(near));
}

std::string even_fault(const ParallelConfig& parallel, int num_layers) {
  const std::vector<int> stages = values_that_do(parallel, &ParallelConfig::pp, num_layers);
  const std::string others =
      stages.empty() ? "" : fmt::format("parallel.pp = {} would do, and so would ", any_of(stages));
  return fmt::format(
      "model.num_layers = {} cannot be shared evenly by parallel.pp = {} stages; {}{}, {} or "
      "parallel.layout {} say who has what",
      num_layers, parallel.pp, others, kFirst, kLast, others.empty() ? "can" : "that");
}

/// "parallel.first_stage_layers = 3" and the same of the last stage, where they are given.
std::vector<std::string> given_stages(const ParallelConfig& parallel) {
  const int first = parallel.first_stage_layers, last = parallel.last_stage_layers;
  std::vector<std::string> given;
  if (first > 0) given.push_back(fmt::format("{} = {}", kFirst, first));
  if (last > 0) given.push_back(fmt::format("{} = {}", kLast, last));
  return given;
}

std::string uneven_fault(const ParallelConfig& parallel, int num_layers) {
  const std::vector<std::string> given = given_stages(parallel);
  const int others = parallel.pp - static_cast<int>(given.size());

  std::string better;
  if (parallel.first_stage_layers > 0)
    better = nearest_that_do(parallel, kFirst, &ParallelConfig::first_stage_layers, num_layers);
  if (parallel.last_stage_layers > 0 && better.empty())
    better = nearest_that_do(parallel, kLast, &ParallelConfig::last_stage_layers, num_layers);
  if (better.empty()) better = "parallel.layout, which may leave stages without layers,";

  const std::string named = join(given, " and "), verb = given.size() == 1 ? "leaves" : "leave";
  if (others == 0) {
    return fmt::format(
        "{} must add up to model.num_layers = {} on parallel.pp = {} stages; {} would do", named,
        num_layers, parallel.pp, better);
  }
  return fmt::format(
      "{} {} of model.num_layers = {} no equal shares, of one layer at least, to the other {} of "
      "parallel.pp = {} stages; {} would do",
      named, verb, num_layers, others, parallel.pp, better);
}

bool is_even(const ParallelConfig& parallel) {
  return parallel.first_stage_layers == 0 && parallel.last_stage_layers == 0;
}

/// "6, the layers of each of parallel.pp = 4 stages"
std::string in_words(const ParallelConfig& parallel, const std::vector<int>& layers) {
  if (is_even(parallel))
    return fmt::format("{}, the layers of each of parallel.pp = {} stages", layers[0], parallel.pp);
  std::vector<std::string> words = given_stages(parallel);
  const std::size_t other = parallel.first_stage_layers > 0 ? 1 : 0;
  if (layers.size() > words.size())
    words.push_back(fmt::format("{} of each other stage", layers[other]));
  return "all of " + enumerate(words, "and");
}

std::string split_fault(const ParallelConfig& parallel, int num_layers) {
  std::string fault = one_stage_fault(parallel);
  if (!fault.empty()) return fault;
  const std::vector<int> layers = stage_layers(parallel, num_layers);
  if (layers.empty())
    return is_even(parallel) ? even_fault(parallel, num_layers)
                             : uneven_fault(parallel, num_layers);
  const int most = common_divisor(layers);
  if (most % parallel.vpp == 0) return "";
  return fmt::format("parallel.vpp = {} does not divide {} (model.num_layers = {}); {} would do",
                     parallel.vpp, in_words(parallel, layers), num_layers, any_of(divisors(most)));
}

std::vector<ModelPart> split_parts(const ParallelConfig& parallel, int num_layers) {
  const std::vector<int> layers = stage_layers(parallel, num_layers);
  std::vector<ModelPart> parts;
  int first = 0;
  for (int chunk = 0; chunk < parallel.vpp; ++chunk) {
    for (const int of_stage : layers) {
      parts.push_back({false, false, first, of_stage / parallel.vpp});
      first += of_stage / parallel.vpp;
    }
  }
  parts.front().embedding = true;
  parts.back().head = true;
  return parts;
}

/// Why this many parts do not suit parallel.pp and parallel.vpp.
std::string count_fault(const ParallelConfig& parallel, int parts) {
  const int pp = parallel.pp;
  const std::string has = fmt::format("parallel.layout = \"{}\" has {} part{}", parallel.layout,
                                      parts, parts == 1 ? "" : "s");
  if (parts % pp != 0) {
    const int below = parts / pp * pp;
    return fmt::format("{}, and parallel.pp = {} needs a multiple of {}; {}{} parts would do", has,
                       pp, pp, below > 0 ? fmt::format("{} or ", below) : "", below + pp);
  }
  if (pp == 1 && parts > 1) {
    return fmt::format(
        "{}, but parallel.pp = 1 is one stage, which has one part; parallel.pp = {} "
        "would do",
        has, parts);
  }
  const int chunks = parts / pp;
  if (parallel.vpp == 1 || parallel.vpp == chunks) return "";
  return fmt::format(
      "{}, which are {} for each of parallel.pp = {} stages, but parallel.vpp = {}; "
      "parallel.vpp = {} would do",
      has, chunks, pp, parallel.vpp, chunks == 1 ? "1" : fmt::format("1 or {}", chunks));
}

std::ptrdiff_t count(const std::vector<std::string>& parts, char letter) {
  std::ptrdiff_t found = 0;
  for (const std::string& part : parts) found += std::count(part.begin(), part.end(), letter);
  return found;
}

/// Why the letters are no model of so many layers, as it follows the key's name.
std::string letters_fault(const std::vector<std::string>& parts, int num_layers) {
  const auto embeddings = count(parts, 'E'), heads = count(parts, 'L'), layers = count(parts, 't');
  if (embeddings != 1 || !parts.front().starts_with('E')) {
    return fmt::format(" has {} E; the first part begins with the only one, as in \"Et|tL\"",
                       embeddings == 1 ? "a misplaced" : std::to_string(embeddings));
  }
  if (heads != 1 || !parts.back().ends_with('L')) {
    return fmt::format(" has {} L; the last part ends with the only one, as in \"Et|tL\"",
                       heads == 1 ? "a misplaced" : std::to_string(heads));
  }
  if (layers == num_layers) return "";
  return fmt::format(" has {} t, one for each layer, but model.num_layers = {}; {} would do",
                     layers, num_layers, num_layers);
}

std::string text_fault(const ParallelConfig& parallel, int num_layers) {
  if (parallel.first_stage_layers > 0 || parallel.last_stage_layers > 0) {
    return fmt::format(
        "parallel.layout = \"{}\" says what every stage has, so {} = {} and {} = {} must be left "
        "at 0",
        parallel.layout, kFirst, parallel.first_stage_layers, kLast, parallel.last_stage_layers);
  }
  const LayoutText layout = read_layout(parallel.layout);
  if (!layout.fault.empty()) return "parallel.layout" + layout.fault;
  std::string fault = count_fault(parallel, static_cast<int>(layout.parts.size()));
  if (!fault.empty()) return fault;
  fault = letters_fault(layout.parts, num_layers);
  return fault.empty() ? "" : fmt::format("parallel.layout = \"{}\"{}", parallel.layout, fault);
}

std::vector<ModelPart> text_parts(const std::string& text) {
  std::vector<ModelPart> parts;
  int first = 0;
  for (const std::string& letters : read_layout(text).parts) {
    const auto layers = static_cast<int>(std::count(letters.begin(), letters.end(), 't'));
    parts.push_back({letters.starts_with('E'), letters.ends_with('L'), first, layers});
    first += layers;
  }
  return parts;
}

}  // namespace

PipelineLayout::PipelineLayout(int stages, std::vector<ModelPart> parts)
    : stages_(stages), parts_(std::move(parts)) {
  require(stages >= 1 && !parts_.empty() && parts_.size() % static_cast<std::size_t>(stages) == 0,
          fmt::format("{} parts do not suit {} stages", parts_.size(), stages));
}

const ModelPart& PipelineLayout::part(int stage, int chunk) const {
  require(0 <= stage && stage < stages_ && 0 <= chunk && chunk < chunks(),
          fmt::format("no chunk {} of stage {} in {} stages of {} chunks", chunk, stage, stages_,
                      chunks()));
  return parts_[static_cast<std::size_t>(chunk) * static_cast<std::size_t>(stages_) +
                static_cast<std::size_t>(stage)];
}

std::string layout_fault(const ParallelConfig& parallel, int num_layers) {
  require(parallel.pp >= 1 && parallel.vpp >= 1 && num_layers >= 1,
          "parallel.pp, parallel.vpp and model.num_layers are at least 1");
  require(parallel.first_stage_layers >= 0 && parallel.last_stage_layers >= 0,
          fmt::format("{} and {} are at least 0", kFirst, kLast));
  return parallel.layout.empty() ? split_fault(parallel, num_layers)
                                 : text_fault(parallel, num_layers);
}

PipelineLayout make_pipeline_layout(const ParallelConfig& parallel, int num_layers) {
  const std::string fault = layout_fault(parallel, num_layers);
  require(fault.empty(), fault, ExitCode::deck);
  return {parallel.pp, parallel.layout.empty() ? split_parts(parallel, num_layers)
                                               : text_parts(parallel.layout)};
}

}  // namespace konclave
