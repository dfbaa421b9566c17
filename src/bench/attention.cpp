#include "bench/benchmarks.hpp"
#include "bench/probes.hpp"
#include "comm/agreed.hpp"
#include "layers/sequences.hpp"

#include <fmt/format.h>

#include <cmath>

namespace konclave {

namespace {

/// Attention of this rank's sequences, without the projections.
class AttentionWork {
 public:
  explicit AttentionWork(const BenchSetup& setup)
      : exec_(setup.exec),
        memory_(account_, MemoryClass::activations, "konclave::bench::attention"),
        operations_(setup.backends, setup.deck.backends, account_) {
    const ModelConfig& model = setup.deck.definition.model;
    const DType type = setup.compute();
    const int dim = model.head_size();
    shape_ = {
        model.num_heads, model.kv_heads(), dim, dim, 1 / std::sqrt(static_cast<double>(dim)), type};
    sequences_ = make_sequences(exec_, memory_, setup.deck.batch.micro_size, model.sequence_length,
                                /*rank=*/0, /*ranks=*/1);
    rows_ = {sequences_.offsets, sequences_.offsets, sequences_.positions, sequences_.positions};
    const std::int64_t wide = std::int64_t{shape_.heads} * dim;
    const std::int64_t narrow = std::int64_t{shape_.kv_heads} * dim;
    const auto made = [&](std::int64_t columns) {
      const AnyView view = memory_.make(type, sequences_.tokens, columns);
      fill_pattern(exec_, view);
      return view;
    };
    q_ = made(wide), k_ = made(narrow), v_ = made(narrow), o_ = made(wide), d_o_ = made(wide);
    dq_ = made(wide), dk_ = made(narrow), dv_ = made(narrow);
    lse_ = memory_.make(accum_type(type), sequences_.tokens, shape_.heads);
    operations_.choose(shape_);
  }

  void forward() {
    operations_.attention_forward(exec_, shape_, {rows_, q_, k_, v_, o_, lse_, {}},
                                  sequences_.longest);
  }
  void backward() {
    operations_.attention_backward(
        exec_, shape_, {rows_, q_, k_, v_, o_, lse_, d_o_, dq_, dk_, dv_, {}}, sequences_.longest);
  }
  double forward_flops() const {
    return attention_forward_flops(sequences_.count, sequences_.longest, shape_.heads, shape_.dk,
                                   shape_.dv);
  }
  std::string backend() { return std::string(operations_.choose(shape_).backend); }

 private:
  ExecSpace exec_;
  MemoryAccount account_;
  Arena memory_;
  Operations operations_;
  AttentionShape shape_;
  Sequences sequences_;
  AttentionRows rows_;
  AnyView q_, k_, v_, o_, d_o_, dq_, dk_, dv_, lse_;
};

}  // namespace

BenchReport bench_attention(const BenchSetup& setup) {
  const ModelConfig& model = setup.deck.definition.model;
  BenchReport report;
  report.benchmark = "attention";
  report.problem = fmt::format(
      "{} of {} tokens a rank, {} heads, {} of keys, size {}, {}; causal, half of the square "
      "counts",
      setup.deck.batch.micro_size, model.sequence_length, model.num_heads, model.kv_heads(),
      model.head_size(), name_of(setup.compute()));
  report.sizes = {{"sequences", setup.deck.batch.micro_size},
                  {"sequence_length", model.sequence_length},
                  {"heads", model.num_heads},
                  {"kv_heads", model.kv_heads()},
                  {"head_dim", model.head_size()},
                  {"compute", name_of(setup.compute())}};
  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  const auto work = together(setup.world, [&] { return std::make_unique<AttentionWork>(setup); });
  AttentionWork* const at = work.get();
  const std::size_t forward = rounds.add([=] { at->forward(); });
  const std::size_t backward = rounds.add([=] { at->backward(); });
  rounds.run();

  report.limits = probes.limits(rounds);
  const double flops = setup.sum(work->forward_flops());
  const auto line = [&](const std::string& name, std::size_t piece, double amount) {
    report.lines.push_back({name, work->backend(), rounds.timing(piece).seconds, amount, 0,
                            limit_seconds(report.limits, amount, 0), "best dense product"});
  };
  line("forward", forward, flops);
  line("backward", backward, 2 * flops);
  return report;
}

}  // namespace konclave
