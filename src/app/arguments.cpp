#include "app/arguments.hpp"

#include "base/text.hpp"
#include "base/version.hpp"

#include <CLI/CLI.hpp>

#include <sstream>

namespace konclave::app {

namespace {

void add_overrides(CLI::App& command, Arguments& arguments) {
  command.add_option("overrides", arguments.overrides, "Deck keys, as section.key=value");
}

void add_deck_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* train = app.add_subcommand(
      "train", "Train; goes on from the newest good checkpoint of the run by itself");
  train->add_option("deck", arguments.deck, "Input deck (TOML)")->required();
  train
      ->add_option(
          "--self-check", arguments.self_check,
          "Instead of a run: so many steps in the deck's mapping and on one rank, from the same "
          "start, and the first tensor that differs; leaves with 1 when there is one")
      ->check(CLI::PositiveNumber);
  add_overrides(*train, arguments);

  CLI::App* check = app.add_subcommand("check", "Validate a deck and print what it resolves to");
  check->add_option("deck", arguments.deck, "Input deck (TOML)")->required();
  check
      ->add_option("--ranks", arguments.ranks,
                   "Ranks that the run would have; by default the fewest that the deck can run on")
      ->check(CLI::PositiveNumber);
  check->add_flag("--schedule", arguments.schedule,
                  "Also print which stage of the pipeline runs what when");
  add_overrides(*check, arguments);

  CLI::App* explain = app.add_subcommand("explain", "Print the deck reference");
  explain->add_option("pattern", arguments.pattern, "Keys to explain, as in 'moe.*'");
  explain->add_flag("--markdown", arguments.markdown, "The whole reference as a Markdown page");
}

void add_model_commands(CLI::App& app, Arguments& arguments) {
  const char* model = "Checkpoint, run folder or Hugging Face folder";
  CLI::App* eval = app.add_subcommand("eval", "Loss and perplexity on a token file, as JSON");
  eval->add_option("model", arguments.model, model)->required();
  eval->add_option("--tokens", arguments.tokens, "Safetensors file with input_ids (N,S)")
      ->required();
  eval->add_option("--logits", arguments.logits,
                   "Write the logits (N,S,V) to this safetensors file");
  add_overrides(*eval, arguments);

  CLI::App* generate = app.add_subcommand("generate", "Continue a text");
  generate->add_option("model", arguments.model, model)->required();
  generate->add_option("--prompt", arguments.prompt, "Text to continue")->required();
  generate->add_option("--max-tokens", arguments.max_tokens, "Tokens to make at most")
      ->check(CLI::NonNegativeNumber);
  generate->add_option("--temperature", arguments.temperature, "0 takes the most likely token")
      ->check(CLI::NonNegativeNumber);
  generate->add_option("--seed", arguments.seed, "Seed of the draws");
  add_overrides(*generate, arguments);

  CLI::App* inspect = app.add_subcommand("inspect", "Print what is in a checkpoint");
  inspect->add_option("checkpoint", arguments.model, "Checkpoint")->required();
  inspect->add_flag("--verify", arguments.verify, "Check every checksum");
}

void add_compare_command(CLI::App& app, Arguments& arguments) {
  CLI::App* compare = app.add_subcommand(
      "compare",
      "Metrics and weights of two runs: what differs, from which step, by how much; leaves with 0 "
      "within the figures, with 1 beyond them");
  const char* run = "Run folder, checkpoint, or folder of checkpoints";
  compare->add_option("run", arguments.source, run)->required();
  compare->add_option("other", arguments.target, run)->required();
  compare
      ->add_option("--tolerance", arguments.tolerance,
                   "Relative difference allowed in losses, norms and weights, instead of the "
                   "figures of precision.compute; 0 wants every bit equal")
      ->check(CLI::NonNegativeNumber);
  compare->add_flag("--json", arguments.json, "One JSON object on stdout instead of tables");
}

void add_report_command(CLI::App& app, Arguments& arguments) {
  CLI::App* report = app.add_subcommand(
      "report", "One HTML page of a run: curves, the load of the experts, speed and memory");
  report->add_option("run", arguments.source, "Run folder")->required();
  report->add_option("--output", arguments.target, "Page to write; report.html in the folder");
}

void add_convert_commands(CLI::App& app, Arguments& arguments) {
  CLI::App* convert = app.add_subcommand("convert", "To and from Hugging Face folders");
  convert->require_subcommand(1);
  CLI::App* from =
      convert->add_subcommand("from-hf", "Mixtral, Qwen2-MoE, Llama or Mistral to a checkpoint");
  from->add_option("folder", arguments.source, "Hugging Face folder")->required();
  from->add_option("checkpoint", arguments.target, "Checkpoint to write")->required();
  from->add_option("--sequence-length", arguments.sequence_length,
                   "Longest sequence that the model is wanted for; the model's own maximum if 0")
      ->check(CLI::NonNegativeNumber);
  CLI::App* to = convert->add_subcommand("to-hf", "A checkpoint to a Hugging Face folder");
  to->add_option("checkpoint", arguments.source, "Checkpoint or run folder")->required();
  to->add_option("folder", arguments.target, "Hugging Face folder to write")->required();
}

void add_upcycle_command(CLI::App& app, Arguments& arguments) {
  CLI::App* upcycle = app.add_subcommand(
      "upcycle", "Make a Mixture-of-Experts checkpoint of a dense model, to train on from there");
  upcycle
      ->add_option("dense", arguments.source,
                   "Checkpoint, run folder or Hugging Face folder of the dense model")
      ->required();
  upcycle->add_option("checkpoint", arguments.target, "Checkpoint to write")->required();
  upcycle->add_option("deck", arguments.deck, "Deck of the Mixture-of-Experts model (TOML)")
      ->required();
  upcycle
      ->add_option("--scaling", arguments.scaling,
                   "What makes up for the routing weights: exact, factors on up_proj and "
                   "down_proj; megatron, on gate_proj too, as Megatron-Core does")
      ->check(CLI::IsMember({"exact", "megatron"}));
  add_overrides(*upcycle, arguments);
}

void add_bench_command(CLI::App& app, Arguments& arguments) {
  BenchSettings& settings = arguments.bench;
  CLI::App* bench = app.add_subcommand(
      "bench",
      "Measure operations, a layer and a step, each with its share of the machine's limit");
  bench->add_option("benchmarks", arguments.overrides,
                    "Of " + enumerate(benchmark_names(), "and") +
                        " (all if none is named), and deck keys, as section.key=value");
  bench->add_option("--repetitions", settings.repetitions, "Rounds of measurement")
      ->check(CLI::Range(7, 10'000));
  bench
      ->add_option("--rows", settings.rows,
                   "gemm: numbers of rows; grouped-gemm: rows of an expert on the average")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::PositiveNumber);
  bench
      ->add_option("--cold", settings.cold_mib,
                   "gemm, grouped-gemm: MiB of weights that cold products go round")
      ->check(CLI::Range(1, 1 << 20));
  bench->add_option("--json", arguments.json_file,
                    "Write the results to this file; - for stdout, and then the table to stderr");
  bench->add_option("--machine", arguments.machine, "Description of the machine");
}

/// Names and keys come in any order.
void sort_bench_words(Arguments& arguments) {
  for (const std::string& word : arguments.overrides) {
    const bool is_key = word.find('=') != std::string::npos;
    (is_key ? arguments.bench.overrides : arguments.bench.benchmarks).push_back(word);
  }
}

std::string command_name(const CLI::App& app) {
  std::string name;
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += (name.empty() ? "" : " ") + at->get_name();
  }
  return name;
}

}  // namespace

Parsed parse_arguments(const std::vector<std::string>& words) {
  Parsed parsed;
  CLI::App app("Konclave trains Mixture-of-Experts language models as batch jobs.", "konclave");
  app.set_version_flag("--version",
                       std::string(version()) + " (" + std::string(source_revision()) + ")");
  app.require_subcommand(1);
  add_deck_commands(app, parsed.arguments);
  add_model_commands(app, parsed.arguments);
  add_compare_command(app, parsed.arguments);
  add_report_command(app, parsed.arguments);
  add_convert_commands(app, parsed.arguments);
  add_upcycle_command(app, parsed.arguments);
  add_bench_command(app, parsed.arguments);
  try {
    // CLI11 takes the last word first.
    app.parse(std::vector<std::string>(words.rbegin(), words.rend() - 1));
    parsed.run = true;
    parsed.arguments.command = command_name(app);
    parsed.arguments.command_line = words;
    if (parsed.arguments.command == "bench") sort_bench_words(parsed.arguments);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out, complaint;
    const int code = app.exit(error, out, complaint);
    parsed.text = out.str() + complaint.str();
    parsed.code = code == 0 ? ExitCode::done : ExitCode::usage;
  }
  return parsed;
}

}  // namespace konclave::app
