#include "tests/mpi/moe_over_ranks.hpp"
#include "tests/mpi/timed_operations.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

/// What rows gain that travel to experts and back beside the work of these and of shared experts,
/// in a virtual time.
namespace konclave {
namespace {

/// An MoE layer whose products take their time, and whose rows are late: so wide that the experts
/// take most of it, with shared experts for a fifth as long, or none.
class TimedLayer {
 public:
  /// With messages of `bandwidth` bytes a second that move for `window` seconds behind each call.
  TimedLayer(const AllRanks& all, bool overlap, bool shared, double bandwidth, double window,
             bool polls = true, const std::string& dispatcher = "alltoall")
      : shared_(shared), clock_(std::make_shared<VirtualClock>(window)) {
    Groups groups = all.groups;
    groups.parallel.overlap_ep = overlap;
    for (Groups::Group* group : {&groups.etp, &groups.ep, &groups.etp_ep}) {
      if ((*group)->size() == 1) continue;
      *group = std::make_shared<DelayedTransport>(*group, clock_, Link{0, bandwidth, true});
      *group = std::make_shared<RecordingTransport>(*group, log_);
    }
    MoeLayerConfig config =
        moe_config({.dispatcher = dispatcher, .balancing = {"none"}, .coefficients = {}});
    config.hidden = 16;
    config.moe.ffn_hidden_size = 24;
    config.moe.shared_ffn_hidden_size = shared ? 12 : 0;
    MoeLayer layer("moe", 0, config, groups, bench_.storage());
    layer.visit_parameters([&](Parameter& parameter) { parameter.initialise(bench_.exec, 3); });
    layer.prepare(bench_.exec, operations_);
    layer.visit_parameters([](Parameter& parameter) { parameter.restart_gradient(); });
    const MoeStep step = bench_.moe_step({0, kTokens}, kTokens, /*layers=*/1, 12);
    const auto tensor = [&](const std::string& name) {
      return bench_.tensors.random(name + std::to_string(all.world.rank()), DType::fp64, kTokens,
                                   config.hidden);
    };
    const AnyView x = tensor("x"), dy = tensor("dy"), y = tensor("y");
    const Context context{bench_.exec, operations_, bench_.activations, bench_.scratch};
    virtual_work = {clock_.get()};
    if (!polls) clock_->ignore_polls();
    MoeLayer::Saved saved;
    forward_ = timed([&] { layer.forward(context, step, x, /*residual=*/{}, saved, y); });
    forward_work = virtual_work.forward;
    forward_log_ = std::move(log_);
    log_.clear();
    backward_ = timed([&] { layer.backward(context, saved, dy, dy); });
    backward_work = virtual_work.forward + virtual_work.backward - forward_work;
    work_behind = 4.0 * static_cast<double>(saved.dispatch->rounds().back().rows) * config.hidden *
                  config.moe.ffn_hidden_size / all.groups.etp->size() /
                  VirtualWork::kOperationsPerSecond;
    longest_work = virtual_work.longest;
  }

  double seconds() const { return forward_ + backward_; }

  /// Bytes on the link.
  struct Bytes {
    double all = 0;
    double alone = 0;  ///< beside which there is nothing to do, however early they set off
  };
  /// No other round hides the last one on its way back, on either hop, and of two hops not the last
  /// but one on the second nor the first gather; without shared experts not the first round either.
  Bytes forward_bytes() const { return bytes(forward_log_, /*there=*/2, /*back=*/1); }
  Bytes backward_bytes() const { return bytes(log_, /*there=*/1, /*back=*/2); }

  /// Of rows and weights, and of rows with gradients, that are gathered by "allgather", behind what
  /// it has to know first.
  double gathered_bytes() const {
    double bytes = 0;
    int gathers = 0;
    for (const std::vector<TransportCall>* log : {&forward_log_, &log_}) {
      for (const TransportCall& call : *log) {
        if (call.collective == "all_gather" && ++gathers > 2) {
          bytes += static_cast<double>(call.received_bytes);
        }
      }
    }
    return bytes;
  }

  // Seconds.
  double forward_work = 0, backward_work = 0, longest_work = 0;
  double work_behind =
      0;  ///< two products of backward that follow when the last round is sent back

 private:
  static constexpr int kTokens = 240;

  template <typename F> double timed(F&& f) const {
    const double begin = clock_->now();
    f();
    return clock_->now() - begin;
  }
  /// Of `there` tensors to the experts and `back` from there.
  Bytes bytes(const std::vector<TransportCall>& log, std::size_t there, std::size_t back) const {
    std::vector<double> calls;
    bool over_ep = false, over_etp = false;
    std::size_t gather = 0;
    for (const TransportCall& call : log) {
      if (call.collective != "all_to_all") continue;
      over_ep = over_ep || call.group == "ep";
      if (call.group == "etp" && !std::exchange(over_etp, true)) gather = calls.size();
      calls.push_back(static_cast<double>(std::max(call.sent_bytes, call.received_bytes)));
    }
    const bool two_hops = over_ep && over_etp;
    Bytes sum{std::accumulate(calls.begin(), calls.end(), 0.0), 0};
    sum.alone = std::accumulate(
        calls.end() - static_cast<std::ptrdiff_t>(back * (two_hops ? 3 : 1)), calls.end(), 0.0);
    if (two_hops) {
      for (std::size_t i = 0; i < there; ++i) sum.alone += calls[gather + i];
    }
    for (std::size_t i = 0; i < there && !shared_; ++i) sum.alone += calls[i];
    return sum;
  }

  bool shared_;
  std::shared_ptr<VirtualClock> clock_;
  Workbench bench_;
  Operations operations_{timed_table(), {}, bench_.account};
  std::vector<TransportCall> log_, forward_log_;
  double forward_ = 0, backward_ = 0;
};

/// The layer takes the longer of computing and communication, forward and backward, and what has
/// nothing beside it; without overlap all of both.
void expect_longer(const AllRanks& all, bool shared) {
  const double forever = std::numeric_limits<double>::infinity();
  const TimedLayer plain(all, false, shared, forever, forever),
      cut(all, true, shared, forever, forever);
  const double computing = plain.forward_work + plain.backward_work;
  EXPECT_NEAR(plain.seconds(), computing, 1e-9 * computing);
  EXPECT_NEAR(cut.seconds(), computing, 1e-9 * computing);
  const TimedLayer::Bytes forward = cut.forward_bytes(), backward = cut.backward_bytes();
  for (const double ratio : {0.25, 1.0, 4.0}) {
    SCOPED_TRACE(testing::Message() << "communication takes " << ratio << " of computing");
    const double bandwidth = (forward.all + backward.all) / (ratio * computing),
                 window = 1.01 * cut.longest_work;

    const double apart = TimedLayer(all, false, shared, bandwidth, window).seconds();
    const double beside = TimedLayer(all, true, shared, bandwidth, window).seconds();

    const double sent = plain.forward_bytes().all + plain.backward_bytes().all;
    EXPECT_NEAR(apart, computing + sent / bandwidth, 1e-6 * apart);
    const auto longer = [&](double work, double behind, const TimedLayer::Bytes& bytes) {
      const double alone = std::max(0.0, bytes.alone / bandwidth - behind);
      return std::max(work + alone, bytes.all / bandwidth);
    };
    const double expected = longer(plain.forward_work, 0, forward) +
                            longer(plain.backward_work, cut.work_behind, backward);
    EXPECT_NEAR(beside, expected, 0.1 * expected);
    EXPECT_LT(expected, 0.95 * apart);
  }
}

TEST(OverlapEpTime, TheLayerTakesTheLongerOfComputingAndCommunication) {
  if (Communicator::world().size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  for (const ParallelConfig& parallel : overlapping_spreads(Communicator::world().size())) {
    const AllRanks all(parallel);
    for (const bool shared : {false, true}) {
      SCOPED_TRACE(testing::Message() << "etp " << parallel.etp << ", ep " << parallel.ep
                                      << (shared ? ", shared experts" : ""));
      expect_longer(all, shared);
    }
  }
}

/// The dispatcher "allgather" has one round: what is gathered hides behind shared experts, forward
/// and backward, and nothing else does.
TEST(OverlapEpTime, SharedExpertsHideTheGather) {
  if (Communicator::world().size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  const AllRanks all(overlapping_spreads(Communicator::world().size()).front());
  const auto run = [&](bool overlap, double bandwidth, double window) {
    return TimedLayer(all, overlap, /*shared=*/true, bandwidth, window, true, "allgather");
  };
  const double forever = std::numeric_limits<double>::infinity();
  const TimedLayer plain = run(true, forever, forever);
  const double gathered = plain.gathered_bytes();
  const double bandwidth = gathered / (0.1 * plain.forward_work),
               window = 1.01 * plain.longest_work;

  const double apart = run(false, bandwidth, window).seconds();
  const double beside = run(true, bandwidth, window).seconds();

  EXPECT_NEAR(beside, apart - gathered / bandwidth, 1e-6 * apart);
}

/// Nothing moves by itself, and no poll sends a round on.
TEST(OverlapEpTime, NeedsThePausesBehindProducts) {
  if (Communicator::world().size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  const AllRanks all(overlapping_spreads(Communicator::world().size()).front());
  const double forever = std::numeric_limits<double>::infinity();
  const TimedLayer plain(all, true, true, forever, forever);
  const double computing = plain.forward_work + plain.backward_work;
  const double bandwidth = (plain.forward_bytes().all + plain.backward_bytes().all) / computing;
  const double window = 1.01 * plain.longest_work;

  const double with = TimedLayer(all, true, true, bandwidth, window).seconds();
  const double without = TimedLayer(all, true, true, bandwidth, window, /*polls=*/false).seconds();

  EXPECT_GT(without, 1.2 * with);
}

}  // namespace
}  // namespace konclave
