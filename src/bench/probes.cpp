#include "bench/probes.hpp"

#include "base/text.hpp"
#include "comm/agreed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unistd.h>

namespace konclave {

namespace {

/// Large enough for any machine's best; of different proportions, as libraries have favourites.
constexpr std::array<ProductSize, 3> kDense = {
    {{1792, 512, 512, 0, 0}, {1024, 1024, 2048, 0, 0}, {512, 1792, 2048, 0, 0}}};

/// A backend that reaches less of the best one's rate is no candidate for the peak.
constexpr double kPromising = 0.6;

/// Beyond what the caches hold, on machines that tell and on those that do not.
std::int64_t bytes_beyond_caches(int ranks) {
  constexpr std::int64_t kUnknown = std::int64_t{32} << 20, kLeast = std::int64_t{64} << 20;
  const auto told = static_cast<std::int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE));
  const std::int64_t cache = told > 0 ? told : kUnknown;
  return std::max(kLeast, 4 * cache / ranks);
}

/// a = s a + b: lines that are written have been read, so that no byte is moved uncounted.
void update_memory(const ExecSpace& exec, const Kokkos::View<double*, MemSpace>& a,
                   const Kokkos::View<double*, MemSpace>& b) {
  Kokkos::parallel_for(
      "konclave::bench::update_memory", Range(exec, 0, static_cast<std::int64_t>(a.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { a(i) = 0.5 * a(i) + b(i); });
}

}  // namespace

std::vector<std::string> gemm_backends(const BenchSetup& setup, const std::string& wanted, int out,
                                       int in, std::vector<std::string>& refusals) {
  const DType type = setup.compute();
  std::vector<std::string> accepting;
  for (const GemmOffer& offer : setup.backends.gemm) {
    const std::string name(offer.backend);
    if (wanted == "auto" ? name == "reference" : name != wanted) continue;
    std::string reason;
    for (const GemmShape& shape :
         {GemmShape{GemmKind::forward, out, in, type, type, false},
          GemmShape{GemmKind::data_gradient, out, in, type, type, false},
          GemmShape{GemmKind::weight_gradient, out, in, type, accum_type(type), false}}) {
      if (reason.empty()) reason = offer.refuses(shape);
    }
    if (reason.empty()) {
      accepting.push_back(name);
    } else {
      refusals.push_back(fmt::format("{} refuses ({}, {}): {}", name, out, in, reason));
    }
  }
  return accepting;
}

MachineProbes::MachineProbes(const BenchSetup& setup, Rounds& rounds) {
  add_products(setup, rounds);
  add_memory(setup, rounds);
}

void MachineProbes::add_products(const BenchSetup& setup, Rounds& rounds) {
  // The small one tells which backends there is any point in timing.
  std::vector<Candidate> all = make_candidates(setup, kDense.front());
  Rounds trial(*setup.groups.world, setup.exec, /*repetitions=*/1, /*shortest=*/0);
  for (const Candidate& candidate : all) {
    trial.add([at = candidate.products.get()] { at->run(GemmKind::forward); });
  }
  trial.run();
  const auto rate = [&](std::size_t i) { return trial.timing(i).calls_per_second.median; };
  double best = 0;
  for (std::size_t i = 0; i < all.size(); ++i) best = std::max(best, rate(i));
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (rate(i) >= kPromising * best) promising_.push_back(all[i].backend);
  }

  for (const ProductSize& size : kDense) {
    for (Candidate& candidate : make_candidates(setup, size)) {
      if (std::find(promising_.begin(), promising_.end(), candidate.backend) == promising_.end()) {
        continue;
      }
      candidate.piece = rounds.add([at = candidate.products.get()] { at->run(GemmKind::forward); });
      candidates_.push_back(std::move(candidate));
    }
  }
}

std::vector<MachineProbes::Candidate> MachineProbes::make_candidates(const BenchSetup& setup,
                                                                     const ProductSize& size) {
  return together(setup.world, [&] {
    std::vector<Candidate> made;
    std::vector<std::string> refusals;
    for (const std::string& backend : gemm_backends(setup, "auto", size.out, size.in, refusals)) {
      made.push_back(
          {backend, fmt::format("{} rows, ({}, {}), {}", size.rows, size.out, size.in, backend),
           std::make_unique<Products>(setup, BackendConfig{backend, "auto", "auto"}, size), 0});
    }
    require(!made.empty(),
            "no backend has a product to measure the machine with: " + join(refusals, "; "),
            ExitCode::deck);
    return made;
  });
}

void MachineProbes::add_memory(const BenchSetup& setup, Rounds& rounds) {
  const auto count =
      static_cast<std::size_t>(bytes_beyond_caches(setup.world.size())) / (2 * sizeof(double));
  target_ = Kokkos::View<double*, MemSpace>("konclave::bench::target", count);
  source_ = Kokkos::View<double*, MemSpace>("konclave::bench::source", count);
  Kokkos::deep_copy(setup.exec, source_, 1.0);
  const ExecSpace exec = setup.exec;
  const auto target = target_, source = source_;
  memory_piece_ = rounds.add([=] { update_memory(exec, target, source); });
}

MachineLimits MachineProbes::limits(const Rounds& rounds) const {
  MachineLimits limits;
  for (const Candidate& candidate : candidates_) {
    const double rate =
        candidate.products->flops() * rounds.timing(candidate.piece).calls_per_second.median;
    if (rate > limits.flops_per_second) limits = {rate, candidate.name, 0};
  }
  const double bytes = 3.0 * sizeof(double) * static_cast<double>(target_.size());
  limits.bytes_per_second = bytes * rounds.timing(memory_piece_).calls_per_second.median;
  return limits;
}

}  // namespace konclave
