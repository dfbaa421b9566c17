#include "base/rng.hpp"
#include "bench/benchmarks.hpp"
#include "bench/layer_memory.hpp"
#include "bench/probes.hpp"
#include "comm/agreed.hpp"
#include "moe/dispatcher.hpp"
#include "moe/router.hpp"
#include "tensor/host_copy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace konclave {

namespace {

/// What is bound by memory is measured on so many tokens that they fit in no cache, unless the
/// size is set.
int sequences_of(const BenchSetup& setup) {
  constexpr int kManyTokens = 32'768;
  const int length = setup.deck.definition.model.sequence_length;
  return setup.settings.sets("batch.micro_size") || setup.settings.sets("model.sequence_length")
             ? setup.deck.batch.micro_size
             : (kManyTokens + length - 1) / length;
}

RoutingSize size_of_routing(const BenchSetup& setup, std::int64_t tokens) {
  const ModelDefinition& definition = setup.deck.definition;
  const DType wide = accum_type(definition.compute);
  return {tokens,
          definition.model.hidden_size,
          definition.moe.num_experts,
          definition.moe.top_k,
          definition.compute,
          definition.moe.router_dtype == "fp64" ? DType::fp64 : wide,
          setup.groups.ep->size() > 1};
}

BenchReport start_report(const BenchSetup& setup, const std::string& name,
                         const RoutingSize& size) {
  BenchReport report;
  report.benchmark = name;
  report.problem = fmt::format("{} tokens a rank, hidden {}, {} experts, top-{}, {}", size.tokens,
                               size.hidden, size.experts, size.top_k, name_of(size.type));
  report.sizes = {{"tokens", size.tokens},         {"hidden", size.hidden},
                  {"experts", size.experts},       {"top_k", size.top_k},
                  {"ep", setup.groups.ep->size()}, {"compute", name_of(size.type)}};
  return report;
}

void add_line(const BenchSetup& setup, const Rounds& rounds, const std::string& name,
              std::size_t piece, RoutingBytes bytes, BenchReport& report) {
  const double least = setup.sum(static_cast<double>(bytes.least));
  const double moved = setup.sum(static_cast<double>(bytes.moved));
  report.lines.push_back({name, "kokkos", rounds.timing(piece).seconds, 0, least,
                          limit_seconds(report.limits, 0, least), "memory bandwidth", moved});
  report.text.push_back(fmt::format("{:<9} {:>9.3f} MB at least, {:>9.3f} MB moved: {:.2f} times",
                                    name, least / 1e6, moved / 1e6, moved / least));
}

class RouterWork {
 public:
  explicit RouterWork(const BenchSetup& setup)
      : memory_(setup, sequences_of(setup)),
        router_("bench.router", setup.deck.definition.model.hidden_size, /*init_std=*/0.02,
                setup.compute(), setup.deck.definition.moe, setup.groups, memory_.storage()) {
    const std::int64_t tokens = memory_.batch.rows_outside;
    const int hidden = setup.deck.definition.model.hidden_size;
    start_layer(memory_, router_);
    x_ = memory_.inputs.make(setup.compute(), tokens, hidden);
    dx_ = memory_.inputs.make(setup.compute(), tokens, hidden);
    d_weights_ =
        memory_.inputs.make(accum_type(setup.compute()), tokens * setup.deck.definition.moe.top_k);
    for (const AnyView& view : {x_, dx_, d_weights_}) fill_pattern(memory_.exec, view);
  }

  void forward() {
    memory_.activations.rewind({});
    router_.forward(memory_.context(), x_, memory_.step, /*layer=*/0, saved_);
  }
  void backward() {
    router_.visit_parameters([](Parameter& parameter) { parameter.restart_gradient(); });
    router_.backward(memory_.context(), saved_, d_weights_, dx_);
  }
  std::int64_t tokens() const { return memory_.batch.rows_outside; }

 private:
  LayerMemory memory_;
  Router router_;
  Router::Saved saved_;
  AnyView x_, dx_, d_weights_;
};

/// Rows of tokens to their experts, wherever these are, and back, with nothing in between.
class DispatchWork {
 public:
  explicit DispatchWork(const BenchSetup& setup)
      : memory_(setup, sequences_of(setup)),
        experts_(setup.deck.definition.moe.num_experts),
        top_k_(setup.deck.definition.moe.top_k),
        hidden_(setup.deck.definition.model.hidden_size),
        type_(setup.compute()),
        dispatcher_(make_dispatcher(setup.deck.definition.moe, setup.groups)) {
    x_ = memory_.inputs.make(type_, tokens(), hidden_);
    y_ = memory_.inputs.make(type_, tokens(), hidden_);
    weights_ = memory_.inputs.make(accum_type(type_), tokens() * top_k_);
    for (const AnyView& view : {x_, y_, weights_}) fill_pattern(memory_.exec, view);
    choose(static_cast<std::uint64_t>(setup.world.rank()));
  }

  /// The way of the chosen experts. Collective over those who share them.
  void plan() {
    memory_.activations.rewind({});
    const Context context = memory_.context();
    routing_ = make_routing_plan(context, experts_, token_offsets_, expert_ids_, weights_);
    dispatch_ = dispatcher_->plan(context, routing_);
  }
  void forward() {
    const Context context = memory_.context();
    const ArenaScope scope(context.scratch);
    const AnyView returned = dispatch_->returned_rows(context, y_);
    const auto back = dispatch_->way_back(context, {returned});
    const auto weights = dispatch_->by_turns(context, weights_, dispatch_->turns());
    go(context, {{x_, back->rows()}, {weights_, weights}}, *back);
    dispatch_->combine(context, returned, /*residual=*/{}, y_);
  }
  void backward() {
    const Context context = memory_.context();
    const ArenaScope scope(context.scratch);
    const AnyView returned = dispatch_->returned_rows(context, y_);
    const AnyView returned_values = dispatch_->returned_values(context, weights_.type());
    const auto back = dispatch_->way_back(context, {returned, returned_values});
    go(context, {{x_, back->rows()}}, *back);
    dispatch_->combine_with_values(context, returned, returned_values, y_);
  }
  std::int64_t tokens() const { return memory_.batch.rows_outside; }
  bool keeps_rows() const { return dispatch_->kept(); }

 private:
  /// There and back, round by round.
  void go(const Context& context, std::vector<Dispatch::Brought> brought, WayBack& back) {
    const auto there = dispatch_->way_there(context, std::move(brought));
    there->start(context);
    for (std::size_t round = 0; round < dispatch_->rounds().size(); ++round) {
      there->arrive(context, round);
      back.give(context, round);
    }
    back.finish(context);
  }
  /// Different experts for each token, in ascending order.
  void choose(std::uint64_t seed) {
    const RandomStream stream(seed, "bench.experts");
    std::vector<int> ids, offsets{0}, all(static_cast<std::size_t>(experts_));
    std::iota(all.begin(), all.end(), 0);
    std::uint64_t draw = 0;
    for (std::int64_t token = 0; token < tokens(); ++token) {
      for (int k = 0; k < top_k_; ++k) {
        const std::uint64_t left = static_cast<std::uint64_t>(experts_ - k);
        std::swap(all[static_cast<std::size_t>(k)],
                  all[static_cast<std::size_t>(k) + stream.bits(draw++) % left]);
      }
      ids.insert(ids.end(), all.begin(), all.begin() + top_k_);
      std::sort(ids.end() - top_k_, ids.end());
      offsets.push_back(static_cast<int>(ids.size()));
    }
    expert_ids_ = upload(memory_.exec, memory_.inputs, ids);
    token_offsets_ = upload(memory_.exec, memory_.inputs, offsets);
  }

  LayerMemory memory_;
  int experts_, top_k_, hidden_;
  DType type_;
  std::shared_ptr<const Dispatcher> dispatcher_;
  std::shared_ptr<const Dispatch> dispatch_;
  RoutingPlan routing_;
  View1<const int> expert_ids_, token_offsets_;
  AnyView x_, y_, weights_;
};

}  // namespace

BenchReport bench_router(const BenchSetup& setup) {
  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  const auto work = together(setup.world, [&] { return std::make_unique<RouterWork>(setup); });
  RouterWork* const at = work.get();
  const std::size_t forward = rounds.add([=] { at->forward(); });
  const std::size_t backward = rounds.add([=] { at->backward(); });
  rounds.run();

  const RoutingSize size = size_of_routing(setup, work->tokens());
  BenchReport report = start_report(setup, "router", size);
  report.limits = probes.limits(rounds);
  add_line(setup, rounds, "forward", forward, router_forward_bytes(size), report);
  add_line(setup, rounds, "backward", backward, router_backward_bytes(size), report);
  return report;
}

BenchReport bench_dispatch(const BenchSetup& setup) {
  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  const auto work = together(setup.world, [&] { return std::make_unique<DispatchWork>(setup); });
  DispatchWork* const at = work.get();
  const std::size_t plan = rounds.add([=] { at->plan(); });
  const std::size_t forward = rounds.add([=] { at->forward(); });
  const std::size_t backward = rounds.add([=] { at->backward(); });
  rounds.run();

  RoutingSize size = size_of_routing(setup, work->tokens());
  if (size.is_shifted && !work->keeps_rows()) {
    size.copied_rows = size.tokens * size.top_k / setup.groups.ep->size();  // on the average
  }
  BenchReport report = start_report(setup, "dispatch", size);
  report.limits = probes.limits(rounds);
  add_line(setup, rounds, "plan", plan, plan_bytes(size), report);
  add_line(setup, rounds, "forward", forward, dispatch_bytes(size), report);
  add_line(setup, rounds, "backward", backward, dispatch_bytes(size), report);
  return report;
}

}  // namespace konclave
