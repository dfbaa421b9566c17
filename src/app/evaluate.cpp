#include "app/commands.hpp"
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
#include <cstring>
#include <filesystem>
#include <limits>

namespace konclave::app {

namespace {

/// Sequences that are evaluated at a time.
constexpr int kMicroSize = 4;

}  // namespace

ExitCode run_eval(const Arguments& arguments, spdlog::logger& log) {
  const int any_length = 0, any_token = std::numeric_limits<int>::max();
  const TokenTable tokens = read_tokens({arguments.tokens}, any_length, any_token);
  const auto source = ModelSource::open(arguments.model, tokens.sequence_length());
  ModelDefinition definition = source->definition(arguments.overrides);
  definition.model.sequence_length = tokens.sequence_length();
  // Once more, now that the model's vocabulary is known.
  const TokenTable data =
      read_tokens({arguments.tokens}, tokens.sequence_length(), definition.model.vocab_size);
  ModelRunner runner(definition, /*trainable=*/false, built_backends(), {});
  source->load(runner);

  std::vector<float> logits;
  std::function<void(const std::vector<double>&)> keep;
  if (!arguments.logits.empty()) {
    keep = [&](const std::vector<double>& part) {
      logits.insert(logits.end(), part.begin(), part.end());
    };
  }
  const Evaluation result = evaluate(runner, data, data.size(), kMicroSize, keep);
  if (keep) {
    const std::size_t bytes = logits.size() * sizeof(float);
    std::filesystem::remove(arguments.logits);  // write_safetensors makes new files only
    write_safetensors(arguments.logits,
                      {{"logits",
                        "F32",
                        {data.size(), data.sequence_length(), definition.model.vocab_size},
                        [&](void* host) { std::memcpy(host, logits.data(), bytes); }}});
    log.info("logits in {}", arguments.logits);
  }
  const nlohmann::json line = {{"loss", result.loss()},
                               {"perplexity", std::exp(result.loss())},
                               {"tokens", result.scored},
                               {"sequences", data.size()}};
  fmt::print("{}\n", line.dump());
  return ExitCode::done;
}

ExitCode run_generate(const Arguments& arguments) {
  const auto source = ModelSource::open(arguments.model);
  const ModelDefinition definition = source->definition(arguments.overrides);
  const auto tokenizer = make_tokenizer(source->tokenizer(arguments.overrides));
  require(definition.model.vocab_size >= tokenizer->vocab_size(),
          arguments.model + " has a vocabulary of " + std::to_string(definition.model.vocab_size) +
              ", too small for the tokenizer's " + std::to_string(tokenizer->vocab_size()),
          ExitCode::input);
  ModelRunner runner(definition, /*trainable=*/false, built_backends(), {});
  source->load(runner);
  GenerationConfig config{arguments.max_tokens, arguments.temperature, arguments.seed,
                          tokenizer->vocab_size()};
  fmt::print("{}", arguments.prompt);
  generate(runner, tokenizer->encode(arguments.prompt), config, [&](int token) {
    fmt::print("{}", tokenizer->decode(std::span(&token, 1)));
    std::fflush(stdout);
  });
  fmt::print("\n");
  return ExitCode::done;
}

}  // namespace konclave::app
