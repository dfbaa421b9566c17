#include "bench/benchmarks.hpp"
#include "bench/layer_memory.hpp"
#include "bench/probes.hpp"
#include "bench/routing_share.hpp"
#include "comm/agreed.hpp"
#include "model/block.hpp"

#include <fmt/format.h>

#include <utility>

namespace konclave {

namespace {

/// The first layer of the model, with experts.
class LayerWork {
 public:
  explicit LayerWork(const BenchSetup& setup)
      : memory_(setup, setup.deck.batch.micro_size),
        block_(one_layer(setup.deck.definition), setup.groups, /*layer=*/0, /*moe_index=*/0,
               memory_.storage()),
        rotary_(memory_.exec,
                rotary_frequencies(setup.deck.definition.model.head_size(),
                                   setup.deck.definition.model.rope_theta,
                                   setup.deck.definition.model.rope_scaling),
                setup.deck.definition.model.sequence_length, setup.compute(), memory_.weights) {
    start_layer(memory_, block_);
    const int hidden = setup.deck.definition.model.hidden_size;
    x_ = memory_.inputs.make(setup.compute(), memory_.batch.rows_outside, hidden);
    gradient_ = memory_.inputs.make(setup.compute(), memory_.batch.rows_outside, hidden);
    fill_pattern(memory_.exec, x_);
  }

  void forward() {
    memory_.activations.rewind({});
    block_.forward(memory_.context(), rotary_, memory_.batch.sequences, memory_.step, x_, saved_);
  }
  void backward() {
    block_.visit_parameters([](Parameter& parameter) { parameter.restart_gradient(); });
    block_.backward(memory_.context(), rotary_, memory_.batch.sequences, saved_, gradient_);
  }
  /// One call of both, and what it was made of.
  std::vector<Phase> both() {
    Trace trace;
    trace.set_recording(true);
    memory_.trace = &trace;
    {
      const TraceSpan step(&trace, "layer", "step");
      fill_pattern(memory_.exec, gradient_);  // the last call has replaced it
      {
        const TraceSpan span(&trace, "forward", "pass");
        forward();
        fence(memory_.exec, "konclave::bench::forward");
      }
      const TraceSpan span(&trace, "backward", "pass");
      backward();
      fence(memory_.exec, "konclave::bench::backward");
    }
    memory_.trace = nullptr;
    return phases_of(trace.events(), /*steps=*/1);
  }
  /// Of the sequences of this rank, which the ranks of tp share.
  std::int64_t tokens() const { return memory_.batch.rows_outside; }

 private:
  static ModelDefinition one_layer(ModelDefinition definition) {
    definition.moe.layer_frequency.clear();
    return definition;
  }

  LayerMemory memory_;
  Block block_;
  Rotary rotary_;
  Block::Saved saved_;
  AnyView x_, gradient_;
};

}  // namespace

BenchReport bench_layer(const BenchSetup& setup) {
  const ModelDefinition& definition = setup.deck.definition;
  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  const auto work = together(setup.world, [&] { return std::make_unique<LayerWork>(setup); });
  LayerWork* const at = work.get();
  const std::size_t forward = rounds.add([=] { at->forward(); });
  std::vector<std::vector<Phase>> calls;
  const std::size_t both = rounds.add([at, &calls] { calls.push_back(at->both()); });
  rounds.run();

  BenchReport report;
  report.benchmark = "layer";
  report.problem =
      fmt::format("attention and {} experts, top-{}; hidden {}, ffn {}, {} tokens a rank, {}",
                  definition.moe.num_experts, definition.moe.top_k, definition.model.hidden_size,
                  definition.moe.ffn_hidden_size, work->tokens(), name_of(definition.compute));
  report.sizes = {{"tokens", work->tokens()},
                  {"hidden", definition.model.hidden_size},
                  {"ffn", definition.moe.ffn_hidden_size},
                  {"experts", definition.moe.num_experts},
                  {"top_k", definition.moe.top_k},
                  {"ep", setup.groups.ep->size()},
                  {"compute", name_of(definition.compute)}};
  report.limits = probes.limits(rounds);
  const double flops =
      setup.sum(layer_flops_per_token(definition) * static_cast<double>(work->tokens()));
  const auto line = [&](const std::string& name, std::size_t piece, double amount) {
    report.lines.push_back({name, "", rounds.timing(piece).seconds, amount, 0,
                            limit_seconds(report.limits, amount, 0), "best dense product"});
  };
  line("forward", forward, flops / 3);
  line("forward and backward", both, flops);
  // Those before the rounds do not count.
  calls.erase(calls.begin(), calls.end() - setup.settings.repetitions);
  describe_routing_share(mean_phases(setup.world, median_phases(calls)), report);
  return report;
}

}  // namespace konclave
