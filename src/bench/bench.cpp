#include "bench/bench.hpp"

#include "bench/benchmarks.hpp"
#include "bench/cpu.hpp"
#include "comm/agreed.hpp"
#include "deck/rank_rules.hpp"
#include "run/rank_place.hpp"

#include <map>

namespace konclave {

namespace {

using Benchmark = BenchReport (*)(const BenchSetup&);

Benchmark benchmark_of(const std::string& name) {
  static const std::map<std::string, Benchmark, std::less<>> all = {
      {"gemm", bench_gemm},           {"grouped-gemm", bench_grouped_gemm},
      {"attention", bench_attention}, {"router", bench_router},
      {"dispatch", bench_dispatch},   {"layer", bench_layer},
      {"step", bench_step},           {"logging", bench_logging}};
  return all.at(name);
}

nlohmann::json machine(const Communicator& world) {
  const Cpu cpu = this_cpu();
  const RankPlace place = this_place();
  return {{"cpu", cpu.model},
          {"product_units", cpu.product_units()},
          {"host_cores", place.host_cores},
          {"ranks", world.size()},
          {"threads", place.threads}};
}

}  // namespace

nlohmann::json bench(const Communicator& world, const BenchSettings& settings,
                     const OpTable& backends, const std::function<void(const BenchReport&)>& show) {
  const Deck deck = together(world, [&] {
    check_settings(settings);
    return bench_deck(settings, world.size());
  });
  const RankGrids grids = together(world, [&] {
    require(deck.definition.moe.num_experts > 0,
            "moe.num_experts = 0: benchmarks are of models with experts", ExitCode::deck);
    MemoryAccount account;
    const Operations known(backends, deck.backends, account);  // or it throws
    return place_ranks(deck, world.size());
  });
  const BenchSetup setup{
      world, settings, deck, backends, Groups::create(world, grids, deck.parallel), ExecSpace()};
  nlohmann::json reports = nlohmann::json::array();
  for (const std::string& name :
       settings.benchmarks.empty() ? benchmark_names() : settings.benchmarks) {
    const BenchReport report = benchmark_of(name)(setup);
    show(report);
    reports.push_back(json_of(report));
  }
  return {{"machine", machine(world)}, {"benchmarks", reports}};
}

}  // namespace konclave
