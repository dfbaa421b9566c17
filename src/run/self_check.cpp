#include "run/self_check.hpp"

#include "base/text.hpp"
#include "comm/agreed.hpp"
#include "data/corpus.hpp"
#include "deck/rank_rules.hpp"
#include "run/batches.hpp"
#include "run/model_source.hpp"
#include "run/tensor_collector.hpp"
#include "tensor/host_copy.hpp"
#include "train/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// By how much what both mappings make may differ. Losses and norms: |a - b| / |b|.
struct Limits {
  double scalars, tensors;
};

Limits limits_of(DType compute) {
  switch (compute) {
    case DType::fp64:
      return {1e-9, 1e-8};
    case DType::fp32:
      return {1e-5, 1e-3};
    case DType::bf16:
      break;
  }
  return {2e-2, 0.3};  // now and then a token goes to another expert
}

/// Gradients of tensors smaller than this, relative to all together, may be little more than
/// rounding.
constexpr double kSmall = 1e-3;

/// Something that both mappings have made.
struct Finding {
  std::string what;  ///< "the output of layer 3", "the gradient of ..."
  double error = 0, limit = 0;

  bool differs() const { return !(error <= limit); }
};

double relative_error(double mine, double expected) {
  return mine == expected ? 0 : std::abs(mine - expected) / std::abs(expected);
}

/// One of the two trainings.
class Side {
 public:
  Side(const Deck& deck, const Groups& groups, const OpTable& backends)
      : runner_(deck.definition, groups, /*trainable=*/true, backends, deck.backends),
        trainer_(runner_, deck.optimizer, deck.run.steps, deck.parallel, deck.run.seed),
        squares_(static_cast<std::size_t>(deck.definition.model.num_layers)) {
    runner_.model().recompute(deck.recompute);
    runner_.observe_layers([this](int layer, const AnyIn& output) { add(layer, output); });
  }

  ModelRunner& runner() { return runner_; }

  void start(const Deck& deck, const ModelSource* source) {
    if (source != nullptr) {
      source->load(runner_);
    } else {
      runner_.model().initialise(runner_.exec(), deck.run.seed);
      runner_.weights_changed();
    }
    trainer_.optimizer().reset(runner_.exec());
  }

  StepMetrics step(const Deck& deck, const Dataset& data, const Sampler& sampler,
                   std::int64_t number) {
    std::fill(squares_.begin(), squares_.end(), 0.0);
    const Transport& dp = *runner_.groups().dp;
    return trainer_.step(
        number, read_batch(data, sampler, deck.batch, (number - 1) * deck.batch.global_size,
                           dp.rank(), dp.size()));
  }

  Trainer& trainer() { return trainer_; }

  /// In the place of the gradients.
  void restore_values() { trainer_.optimizer().restore_values(runner_.exec()); }

  /// 2-norms of the outputs of all layers over all tokens of the last step. Collective.
  std::vector<double> output_norms() const {
    std::vector<double> norms = squares_;
    const Groups& groups = runner_.groups();
    for (const auto& group : {groups.tp, groups.cp, groups.dp, groups.pp}) {
      group->sum(std::span(norms));
    }
    for (double& norm : norms) norm = std::sqrt(norm);
    return norms;
  }

 private:
  void add(int layer, const AnyIn& output) {
    const Groups& groups = runner_.groups();
    // Without sequence parallelism all ranks of tp have the same rows.
    if (groups.tp->rank() > 0 && !TensorParallel(groups).shares_rows()) return;
    for (const double value : to_doubles(runner_.exec(), output)) {
      squares_[static_cast<std::size_t>(layer)] += value * value;
    }
  }

  ModelRunner runner_;
  Trainer trainer_;
  std::vector<double> squares_;  ///< of this rank's rows
};

std::vector<double> as_doubles(DType type, const std::vector<std::byte>& bytes) {
  return dispatch(type, [&](auto tag) {
    using X = typename decltype(tag)::type;
    const auto* const values = reinterpret_cast<const X*>(bytes.data());
    std::vector<double> wide;
    for (std::size_t i = 0; i < bytes.size() / sizeof(X); ++i) {
      wide.push_back(static_cast<double>(Accum<X>(values[i])));
    }
    return wide;
  });
}

enum class Kind { gradient, weight };

/// The gradients or the weights of all parameters, wherever they are.
TensorCollector make_collector(const Communicator& world, Side& side, Kind kind) {
  ModelRunner& runner = side.runner();
  std::vector<TensorInfo> tensors;
  for (const ParameterSpec& spec : parameter_specs(runner.model().definition())) {
    const DType type = kind == Kind::gradient ? accum_type(spec.type) : spec.type;
    tensors.push_back({spec.name, type, spec.shape});
  }
  TensorParts parts;
  if (kind == Kind::weight) {
    runner.model().visit_parameters([&](const Parameter& parameter) {
      if (parameter.placement().copy) return;
      parts.emplace(parameter.name(), part_of(parameter, parameter.value(), runner.groups()));
    });
  } else {
    for (const Optimizer::State& state : side.trainer().optimizer().states()) {
      const Parameter& parameter = *state.piece.parameter;
      parts.emplace(parameter.name(),
                    part_of(state, state.piece.of(parameter.grad()), runner.groups()));
    }
  }
  return {world, runner, std::move(tensors), std::move(parts)};
}

double norm_of(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

/// Tensors of all ranks against those of `whole`, which rank 0 has; one finding each there.
/// Gradients come in the order of backward, weights in the model's.
std::vector<Finding> compare_tensors(TensorCollector& collector, Side* whole, Kind kind,
                                     double limit) {
  std::map<std::string, std::vector<double>> expected;
  double all = 0;
  if (whole != nullptr) {
    whole->runner().model().visit_parameters([&](const Parameter& parameter) {
      const AnyView& view = kind == Kind::gradient ? parameter.grad() : parameter.value();
      std::vector<double>& values = expected[parameter.name()];
      values = to_doubles(whole->runner().exec(), view);
      all = std::hypot(all, norm_of(values));
    });
  }
  std::vector<Finding> findings;
  for (std::size_t index = 0; index < collector.tensors().size(); ++index) {
    const TensorInfo& info = collector.tensors()[index];
    std::vector<std::byte> bytes(whole != nullptr ? static_cast<std::size_t>(info.bytes()) : 0);
    collector.collect(index, whole != nullptr ? bytes.data() : nullptr);
    if (whole == nullptr) continue;
    const std::vector<double>& values = expected.at(info.name);
    std::vector<double> gap = as_doubles(info.type, bytes);
    for (std::size_t i = 0; i < gap.size(); ++i) gap[i] -= values[i];
    const double size = std::max(norm_of(values), kSmall * all);
    const double distance = norm_of(gap);
    findings.push_back(
        {fmt::format("the {} of {}", kind == Kind::gradient ? "gradient" : "value", info.name),
         distance == 0 ? 0 : distance / size, limit});
  }
  if (kind == Kind::gradient) std::reverse(findings.begin(), findings.end());
  return findings;
}

const Finding& largest(const std::vector<Finding>& findings) {
  return *std::max_element(findings.begin(), findings.end(),
                           [](const Finding& a, const Finding& b) {
                             return !(a.error >= b.error) && !std::isnan(a.error);
                           });
}

/// All findings of one step in the order in which the step makes things; on rank 0.
struct StepFindings {
  std::vector<Finding> outputs, scalars, gradients, weights;

  std::optional<Finding> first_that_differs() const {
    for (const auto* part : {&outputs, &scalars, &gradients, &weights}) {
      for (const Finding& finding : *part) {
        if (finding.differs()) return finding;
      }
    }
    return std::nullopt;
  }
};

/// Refuses what is not meant to be the same on one rank.
void require_same_counts(const Deck& deck, int dp) {
  require(
      dp == 1 || !deck.definition.moe.goes_by_running_load(),
      fmt::format("--self-check: with moe.global_aux_counts = \"running\" results depend on the "
                  "number of data-parallel ranks, so {} of them can't be compared with one "
                  "rank; moe.global_aux_counts = \"previous\" would do, or a mapping without "
                  "data parallelism",
                  dp),
      ExitCode::deck);
}

void report(std::int64_t step, const StepMetrics& metrics, const StepFindings& findings,
            spdlog::logger& log) {
  log.info(
      "step {}: loss {:.6f}, gradient norm {:.6f}; errors: loss {:.1e}, norm {:.1e}, largest of {} "
      "{:.1e}, of {} {:.1e}",
      step, metrics.loss, metrics.grad_norm, findings.scalars[0].error, findings.scalars[1].error,
      largest(findings.gradients).what, largest(findings.gradients).error,
      largest(findings.weights).what, largest(findings.weights).error);
}

}  // namespace

ExitCode self_check(const Communicator& world, const Deck& deck, const OpTable& backends,
                    std::int64_t steps, spdlog::logger& log) {
  const bool is_root = world.rank() == 0;
  const Limits limits = limits_of(deck.definition.compute);
  const RankGrids grids = together(world, [&] {
    RankGrids placed = place_ranks(deck, world.size());
    require_same_counts(deck, placed.dense.size("dp"));
    return placed;
  });
  const Corpus corpus = together(world, [&] {
    return open_corpus(deck.data, deck.definition.model.sequence_length,
                       deck.definition.model.vocab_size);
  });
  std::unique_ptr<ModelSource> source;
  if (!deck.checkpoint.load.empty()) {
    source = ModelSource::open(world, deck.checkpoint.load, deck.definition.model.sequence_length);
  }
  const Sampler sampler(corpus.train->size(), deck.data.shuffle, deck.run.seed);

  Side mapped(deck, Groups::create(world, grids, deck.parallel), backends);
  Deck simple = deck;
  simple.parallel = {};
  simple.recompute = {};
  simple.definition.moe.dispatcher = "alltoall";
  simple.definition.moe.receive_budget = 0;
  std::optional<Side> whole;
  if (is_root) whole.emplace(simple, Groups::alone(), backends);
  together(world, [&] {
    mapped.start(deck, source.get());
    if (whole) whole->start(simple, source.get());
  });
  log.info("self-check: {} steps on {} ranks and on one of them alone", steps, world.size());

  TensorCollector gradients = make_collector(world, mapped, Kind::gradient);
  TensorCollector weights = make_collector(world, mapped, Kind::weight);
  Side* const other = whole ? &*whole : nullptr;
  for (std::int64_t step = 1; step <= steps; ++step) {
    StepFindings findings;
    StepMetrics expected;
    if (whole) expected = whole->step(simple, *corpus.train, sampler, step);
    // Behind the step new values may be where gradients were.
    mapped.trainer().observe_gradients([&] {
      findings.gradients = compare_tensors(gradients, other, Kind::gradient, limits.tensors);
    });
    const StepMetrics metrics = mapped.step(deck, *corpus.train, sampler, step);
    const std::vector<double> outputs = mapped.output_norms();
    if (whole) {
      const std::vector<double> wanted = whole->output_norms();
      for (std::size_t layer = 0; layer < outputs.size(); ++layer) {
        findings.outputs.push_back(
            {fmt::format("the output of layer {} (model.layers.{})", layer, layer),
             relative_error(outputs[layer], wanted[layer]), limits.scalars});
      }
      findings.scalars = {
          {"the loss", relative_error(metrics.loss, expected.loss), limits.scalars},
          {"the gradient norm", relative_error(metrics.grad_norm, expected.grad_norm),
           std::numeric_limits<double>::infinity()}};  // the gradients themselves say more
    }
    mapped.restore_values();
    if (whole) whole->restore_values();
    findings.weights = compare_tensors(weights, other, Kind::weight, limits.tensors);
    std::string difference;
    if (whole) {
      report(step, metrics, findings, log);
      if (const auto first = findings.first_that_differs()) {
        difference = fmt::format("{} is the first that differs, by {:.1e} where {:.1e} is allowed",
                                 first->what, first->error, first->limit);
      }
    }
    difference = world.broadcast(difference, 0);
    if (!difference.empty()) {
      log.error("self-check: step {}: {}", step, difference);
      return ExitCode::differs;
    }
  }
  log.info("self-check: both mappings agree");
  return ExitCode::done;
}

}  // namespace konclave
