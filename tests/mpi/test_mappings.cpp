#include "deck/mapping_rules.hpp"
#include "parallel/schedule.hpp"
#include "tests/mpi/training_over_ranks.hpp"

#include <fmt/format.h>
#include <rapidcheck.h>
#include <rapidcheck/detail/Configuration.h>

namespace konclave {
namespace {

constexpr int kSteps = 2;
constexpr int kSequences = 24;  // 1, 2, 3, 4 and 8 ranks can share them

struct Mapping {
  ParallelConfig parallel;
  int micro_size = 1;
  std::string dispatcher = "alltoall";
  bool has_experts = true;
};

std::string text(const Mapping& mapping) {
  const ParallelConfig& p = mapping.parallel;
  return fmt::format(
      "tp {} sp {} cp {} {} pp {} vpp {} first {} etp {} ep {} order {} micro {} {}{}", p.tp, p.sp,
      p.cp, p.cp_comm, p.pp, p.vpp, p.first_stage_layers, p.etp, p.ep, p.order, mapping.micro_size,
      mapping.dispatcher, mapping.has_experts ? "" : ", dense");
}

ModelDefinition model_of(const Mapping& mapping) {
  ModelDefinition definition = divisible_model();
  definition.moe.dispatcher = mapping.dispatcher;
  if (!mapping.has_experts) definition.moe = MoeConfig();
  return definition;
}

bool is_legal(const Mapping& mapping, int ranks) {
  const ParallelConfig& parallel = mapping.parallel;
  if (!mapping_fault(model_of(mapping), parallel).empty()) return false;
  if (!order_fault(parallel, ranks).empty()) return false;
  const int dp = ranks / (parallel.tp * parallel.cp * parallel.pp);
  if (kSequences % (mapping.micro_size * dp) != 0) return false;
  return schedule_fault({parallel.pp, parallel.vpp, kSequences / (mapping.micro_size * dp)})
      .empty();
}

int any_divisor(int number) { return *rc::gen::elementOf(ep_sizes(number)); }

Mapping any_mapping(int ranks) {
  Mapping mapping;
  ParallelConfig& parallel = mapping.parallel;
  mapping.has_experts = *rc::gen::inRange(0, 4) > 0;
  parallel.pp = any_divisor(ranks);
  parallel.tp = any_divisor(ranks / parallel.pp);
  parallel.cp = any_divisor(ranks / parallel.pp / parallel.tp);
  parallel.sp = mapping.has_experts || *rc::gen::arbitrary<bool>();
  parallel.cp_comm = *rc::gen::element<std::string>("ring", "all_gather", "a2a");
  if (parallel.pp > 1) {
    parallel.vpp = *rc::gen::element(1, 2, 4);
    parallel.first_stage_layers = *rc::gen::element(0, 0, 1, 2);
  }
  if (mapping.has_experts) {
    parallel.ep = any_divisor(ranks / parallel.pp);
    parallel.etp = any_divisor(ranks / parallel.pp / parallel.ep);
    mapping.dispatcher = *rc::gen::element<std::string>("alltoall", "allgather");
  }
  parallel.order = *rc::gen::element<std::string>("tp-cp-ep-dp-pp", "dp-ep-cp-tp-pp",
                                                  "ep-tp-dp-cp-pp", "tp-cp-ep-pp-dp");
  mapping.micro_size = *rc::gen::element(1, 2, 3);
  return mapping;
}

/// A number that rank 0 draws, or has from RC_PARAMS: all ranks draw the same by it.
std::uint64_t common_seed(const Communicator& world) {
  const std::uint64_t mine = rc::detail::configuration().testParams.seed;
  return std::stoull(world.broadcast(std::to_string(mine), /*root=*/0));
}

TEST(RandomMappings, TrainAsOneRankDoes) {
  const Communicator world = Communicator::world();
  const int ranks = world.size();
  const BatchForm batch = {kSequences, 1};
  Mapping dense;
  dense.has_experts = false;
  const Outcome mixed_alone(Training(Groups::alone(), model_of({}), batch), kSteps);
  const Outcome dense_alone(Training(Groups::alone(), model_of(dense), batch), kSteps);
  EXPECT_GT(mixed_alone.steps[0].aux_loss, 0.05);
  EXPECT_GT(std::abs(mixed_alone.steps[0].loss - dense_alone.steps[0].loss), 1e-6);

  const rc::Gen<Mapping> mappings =
      rc::gen::suchThat(rc::gen::exec([=] { return any_mapping(ranks); }),
                        [=](const Mapping& mapping) { return is_legal(mapping, ranks); });
  const std::uint64_t seed = common_seed(world);
  rc::Random random(seed);
  for (int i = 0; i < 12; ++i) {
    const Mapping mapping = mappings(random.split(), rc::kNominalSize).value();
    SCOPED_TRACE(fmt::format("{}; RC_PARAMS=seed={}", text(mapping), seed));
    const AllRanks all(mapping.parallel);
    Training split(all.groups, model_of(mapping), {kSequences, mapping.micro_size});
    expect_same(split, mapping.has_experts ? mixed_alone : dense_alone);
  }
}

}  // namespace
}  // namespace konclave
