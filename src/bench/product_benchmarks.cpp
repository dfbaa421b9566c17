#include "bench/benchmarks.hpp"
#include "bench/cpu.hpp"
#include "bench/probes.hpp"
#include "comm/agreed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace konclave {

namespace {

constexpr std::array<GemmKind, 3> kKinds = {GemmKind::forward, GemmKind::data_gradient,
                                            GemmKind::weight_gradient};

BackendConfig insist_on(const std::string& gemm) { return {gemm, "auto", "auto"}; }

/// Products that were timed.
struct Timed {
  std::string name, backend;
  GemmKind kind = GemmKind::forward;
  double flops = 0;
  std::size_t piece = 0;
};

std::vector<int> rows_of(const BenchSettings& settings) {
  return settings.rows.empty() ? std::vector<int>{64, 256, 1024} : settings.rows;
}

}  // namespace

BenchReport bench_gemm(const BenchSetup& setup) {
  const int out = setup.deck.definition.moe.ffn_hidden_size;
  const int in = setup.deck.definition.model.hidden_size;
  const std::int64_t cold = setup.settings.cold_mib << 20;
  BenchReport report;
  report.benchmark = "gemm";
  report.problem = fmt::format("({}, {}), {}; cold: {} MiB of weights, each in its turn", out, in,
                               name_of(setup.compute()), setup.settings.cold_mib);
  report.sizes = {{"out", out},
                  {"in", in},
                  {"rows", rows_of(setup.settings)},
                  {"cold_bytes", cold},
                  {"compute", name_of(setup.compute())}};

  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  std::vector<std::unique_ptr<Products>> products;
  std::vector<Timed> timed;
  together(setup.world, [&] {
    for (const std::string& backend :
         gemm_backends(setup, setup.deck.backends.gemm, out, in, report.text)) {
      for (const int rows : rows_of(setup.settings)) {
        for (const std::int64_t bytes : {std::int64_t{0}, cold}) {
          products.push_back(std::make_unique<Products>(setup, insist_on(backend),
                                                        ProductSize{out, in, rows, 0, bytes}));
          for (const GemmKind kind : kKinds) {
            Products* const at = products.back().get();
            timed.push_back(
                {fmt::format("{}, {} rows, {}", name_of(kind), rows, bytes > 0 ? "cold" : "hot"),
                 backend, kind, setup.world.size() * at->flops(),
                 rounds.add([=] { at->run(kind); })});
          }
        }
      }
    }
  });
  rounds.run();

  report.limits = probes.limits(rounds);
  // A product here may be better than what the machine was judged by.
  for (const Timed& product : timed) {
    const double rate = product.flops / rounds.timing(product.piece).seconds.median;
    if (rate > report.limits.flops_per_second) {
      report.limits.flops_per_second = rate;
      report.limits.product = product.name + ", " + product.backend;
    }
  }
  for (const Timed& product : timed) {
    report.lines.push_back({product.name, product.backend, rounds.timing(product.piece).seconds,
                            product.flops, 0, limit_seconds(report.limits, product.flops, 0),
                            "best dense product"});
  }
  return report;
}

namespace {

/// Experts whose products are compared with one dense product.
struct ExpertCase {
  int experts = 0, rows = 0, ffn = 0;
  double target = 0;  ///< share of the dense product's rate; 0: none was set

  std::string describe() const { return fmt::format("{} x {} rows", experts, rows); }
};

std::vector<ExpertCase> expert_cases(const BenchSetup& setup) {
  const MoeConfig& moe = setup.deck.definition.moe;
  const BenchSettings& settings = setup.settings;
  if (settings.rows.empty() && !settings.sets("moe.num_experts") &&
      !settings.sets("moe.ffn_hidden_size")) {
    return {{8, 256, 1792, 0.85}, {64, 32, 448, 0.70}};
  }
  std::vector<ExpertCase> cases;
  for (const int rows : settings.rows.empty() ? std::vector<int>{256} : settings.rows) {
    cases.push_back({moe.num_experts, rows, moe.ffn_hidden_size, 0});
  }
  return cases;
}

/// One case: the grouped products, each kind and all three, and the dense ones of `backends`.
class ExpertComparison {
 public:
  ExpertComparison(const BenchSetup& setup, const ExpertCase& sizes,
                   const std::vector<std::string>& backends, Rounds& rounds)
      : sizes_(sizes), ranks_(setup.world.size()) {
    const int in = setup.deck.definition.model.hidden_size;
    const std::int64_t rows = std::int64_t{sizes.experts} * sizes.rows;
    grouped_ = std::make_unique<Products>(
        setup, setup.deck.backends,
        ProductSize{sizes.ffn, in, rows, sizes.experts, setup.settings.cold_mib << 20});
    Products* const grouped = grouped_.get();
    for (const GemmKind kind : kKinds) {
      pieces_.push_back(rounds.add([=] { grouped->run(kind); }));
    }
    pieces_.push_back(rounds.add([=] {
      for (const GemmKind kind : kKinds) grouped->run(kind);
    }));
    std::vector<std::string> refusals;
    for (const std::string& backend : gemm_backends(setup, "auto", sizes.ffn, in, refusals)) {
      if (std::find(backends.begin(), backends.end(), backend) == backends.end()) continue;
      dense_.push_back(
          {backend,
           std::make_unique<Products>(setup, insist_on(backend), ProductSize{sizes.ffn, in, rows}),
           {}});
      Products* const products = dense_.back().products.get();
      for (const GemmKind kind : kKinds) {
        dense_.back().pieces.push_back(rounds.add([=] { products->run(kind); }));
      }
    }
  }

  void add_lines(const Rounds& rounds, BenchReport& report) {
    const double flops = ranks_ * grouped_->flops();
    double all = 0;
    for (std::size_t i = 0; i < kKinds.size(); ++i) {
      const auto [seconds, backend] = best_dense(rounds, i);
      all += seconds;
      report.lines.push_back({fmt::format("{}, {}", sizes_.describe(), name_of(kKinds[i])),
                              grouped_->backend(kKinds[i]), rounds.timing(pieces_[i]).seconds,
                              flops, 0, seconds, "dense product of equal work, " + backend});
    }
    report.lines.push_back({sizes_.describe() + ", all three", grouped_->backend(GemmKind::forward),
                            rounds.timing(pieces_.back()).seconds, kKinds.size() * flops, 0, all,
                            "dense products of equal work"});
  }

 private:
  struct Dense {
    std::string backend;
    std::unique_ptr<Products> products;
    std::vector<std::size_t> pieces;
  };

  std::pair<double, std::string> best_dense(const Rounds& rounds, std::size_t kind) const {
    std::pair<double, std::string> best;
    for (const Dense& dense : dense_) {
      const double seconds = rounds.timing(dense.pieces[kind]).seconds.median;
      if (best.second.empty() || seconds < best.first) best = {seconds, dense.backend};
    }
    return best;
  }

  ExpertCase sizes_;
  int ranks_;
  std::unique_ptr<Products> grouped_;
  std::vector<std::size_t> pieces_;  ///< each kind, then all of them
  std::vector<Dense> dense_;
};

/// What is said of a target, which was set for bf16 on CPUs with matrix units.
std::string judge(const BenchSetup& setup, const ExpertCase& sizes, double ratio) {
  const bool applies = setup.compute() == DType::bf16 && this_cpu().has("amx_bf16");
  return fmt::format("{}: {:.1f}% of the dense products, wanted {:.0f}% in bf16 with AMX: {}",
                     sizes.describe(), 100 * ratio, 100 * sizes.target,
                     !applies                ? "not applicable"
                     : ratio >= sizes.target ? "reached"
                                             : "not reached");
}

}  // namespace

BenchReport bench_grouped_gemm(const BenchSetup& setup) {
  const std::vector<ExpertCase> cases = expert_cases(setup);
  BenchReport report;
  report.benchmark = "grouped-gemm";
  report.problem = fmt::format("experts with uneven rows, others in each call, hidden {}, {}",
                               setup.deck.definition.model.hidden_size, name_of(setup.compute()));
  report.sizes = {{"hidden", setup.deck.definition.model.hidden_size},
                  {"compute", name_of(setup.compute())},
                  {"cases", nlohmann::json::array()}};
  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  std::vector<std::unique_ptr<ExpertComparison>> comparisons;
  together(setup.world, [&] {
    for (const ExpertCase& sizes : cases) {
      comparisons.push_back(
          std::make_unique<ExpertComparison>(setup, sizes, probes.promising(), rounds));
    }
  });
  rounds.run();
  report.limits = probes.limits(rounds);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    comparisons[i]->add_lines(rounds, report);
    report.sizes["cases"].push_back(
        {{"experts", cases[i].experts}, {"rows", cases[i].rows}, {"ffn", cases[i].ffn}});
    if (cases[i].target > 0) {
      report.text.push_back(judge(setup, cases[i], report.lines.back().ratio()));
    }
  }
  return report;
}

}  // namespace konclave
