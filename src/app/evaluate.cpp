#include "app/commands.hpp"
#include "comm/agreed.hpp"
#include "data/safetensors.hpp"
#include "data/tokenizer.hpp"
#include "data/tokens.hpp"
#include "ops/backend_list.hpp"
#include "run/evaluation.hpp"
#include "run/generation.hpp"
#include "run/model_source.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

namespace konclave::app {

namespace {

/// Sequences that are evaluated at a time.
constexpr int kMicroSize = 4;

/// The groups to use a model with. Which mapping it was trained under does not matter.
Groups make_groups(const ModelSource& source, const ModelDefinition& definition,
                   const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  const ParallelConfig parallel = together(
      world, [&] { return source.parallel(definition, arguments.overrides, world.size()); });
  const RankGrids grids = together(world, [&] { return make_rank_grids(parallel, world.size()); });
  if (world.size() > 1) {
    log.info("{} ranks, tp = {}, cp = {}, dp = {}, pp = {}; experts etp = {}, ep = {}",
             world.size(), grids.dense.size("tp"), grids.dense.size("cp"), grids.dense.size("dp"),
             grids.dense.size("pp"), grids.experts.size("etp"), grids.experts.size("ep"));
  }
  return Groups::create(world, grids, parallel);
}

/// A file of logits (N,S,V) in fp32 that each rank fills where its sequences are.
class LogitsFile {
 public:
  /// Collective. A file that is there already is replaced.
  LogitsFile(const Communicator& world, const std::string& path, const TokenTable& data,
             int vocabulary)
      : sequence_bytes_(std::int64_t{data.sequence_length()} * vocabulary *
                        static_cast<std::int64_t>(sizeof(float))) {
    std::string begin;
    on_root(world, [&] {
      std::filesystem::remove(path);  // create_safetensors makes new files only
      const auto places = create_safetensors(
          path, {{"logits", "F32", {data.size(), data.sequence_length(), vocabulary}, nullptr}});
      begin = std::to_string(places.at("logits"));
    });
    begin_ = std::stoll(world.broadcast(begin, 0));
    together(world, [&] { file_.emplace(File::open_for_writing(path)); });
  }

  void write(std::int64_t first, const std::vector<double>& logits) {
    const std::vector<float> narrow(logits.begin(), logits.end());
    file_->write(begin_ + first * sequence_bytes_, narrow.data(), narrow.size() * sizeof(float));
  }
  /// Collective: the file is whole.
  void close(const Communicator& world) {
    together(world, [&] {
      file_->sync();
      file_->close();
    });
  }

 private:
  std::int64_t sequence_bytes_, begin_ = 0;
  std::optional<File> file_;
};

/// The data, and the model that it goes into.
struct Subject {
  std::unique_ptr<ModelSource> source;
  ModelDefinition definition;
  std::optional<TokenTable> data;
};

Subject open_subject(const Arguments& arguments, const Communicator& world) {
  const int any_length = 0, any_token = std::numeric_limits<int>::max();
  const int length = together(world, [&] {
    return read_tokens({arguments.tokens}, any_length, any_token).sequence_length();
  });
  Subject subject;
  subject.source = ModelSource::open(world, arguments.model, length);
  together(world, [&] {
    subject.definition = subject.source->definition(arguments.overrides);
    subject.definition.model.sequence_length = length;
    // Once more, now that the model's vocabulary is known.
    subject.data.emplace(
        read_tokens({arguments.tokens}, length, subject.definition.model.vocab_size));
  });
  return subject;
}

}  // namespace

ExitCode run_eval(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  const Subject subject = open_subject(arguments, world);
  const TokenTable& data = *subject.data;
  ModelRunner runner(subject.definition,
                     make_groups(*subject.source, subject.definition, arguments, world, log),
                     /*trainable=*/false, built_backends(), {});
  together(world, [&] { subject.source->load(runner); });

  std::optional<LogitsFile> logits;
  LogitsSink keep;
  if (!arguments.logits.empty()) {
    logits.emplace(world, arguments.logits, data, subject.definition.model.vocab_size);
    keep = [&](std::int64_t first, const std::vector<double>& part) { logits->write(first, part); };
  }
  const Evaluation result = evaluate(runner, data, data.size(), kMicroSize, keep);
  if (logits) {
    logits->close(world);
    log.info("logits in {}", arguments.logits);
  }
  const nlohmann::json line = {{"loss", result.loss()},
                               {"perplexity", std::exp(result.loss())},
                               {"tokens", result.scored},
                               {"sequences", data.size()}};
  if (world.rank() == 0) fmt::print("{}\n", line.dump());
  return ExitCode::done;
}

ExitCode run_generate(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  const auto source = ModelSource::open(world, arguments.model);
  ModelDefinition definition;
  std::unique_ptr<Tokenizer> tokenizer;
  together(world, [&] {
    definition = source->definition(arguments.overrides);
    tokenizer = make_tokenizer(source->tokenizer(arguments.overrides));
    require(definition.model.vocab_size >= tokenizer->vocab_size(),
            arguments.model + " has a vocabulary of " +
                std::to_string(definition.model.vocab_size) + ", too small for the tokenizer's " +
                std::to_string(tokenizer->vocab_size()),
            ExitCode::input);
  });
  ModelRunner runner(definition, make_groups(*source, definition, arguments, world, log),
                     /*trainable=*/false, built_backends(), {});
  together(world, [&] { source->load(runner); });
  const GenerationConfig config{arguments.max_tokens, arguments.temperature, arguments.seed,
                                tokenizer->vocab_size()};
  std::FILE* const out = world.rank() == 0 ? stdout : nullptr;
  const auto say = [&](const std::string& text) {
    if (out == nullptr) return;
    fmt::print(out, "{}", text);
    std::fflush(out);
  };
  say(arguments.prompt);
  generate(runner, tokenizer->encode(arguments.prompt), config,
           [&](int token) { say(tokenizer->decode(std::span(&token, 1))); });
  say("\n");
  return ExitCode::done;
}

}  // namespace konclave::app
