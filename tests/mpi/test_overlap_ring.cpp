#include "comm/mpi_transport.hpp"
#include "layers/attention_core.hpp"
#include "layers/sequences.hpp"
#include "tests/mpi/timed_operations.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>

/// Keys, values and their gradients on their way round beside attention, in a time of its own.
namespace konclave {
namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();
constexpr AttentionShape kShape = {4, 2, 8, 8, 0.4, DType::fp64};
constexpr int kSequences = 2;

/// Of each rank's attention.
struct Seconds {
  double forward, backward;
};

struct OverlapOfRing : testing::Test {
  int ranks() const { return world.size(); }
  int length() const { return 12 * ranks(); }
  /// Of a rank's keys, which are as many as its values.
  static double bytes() { return kSequences * 12 * kShape.kv_heads * kShape.dk * sizeof(double); }

  /// With messages of so many seconds that move for `window` behind each call.
  Seconds run(double message, double window) {
    const auto clock = std::make_shared<VirtualClock>(window);
    virtual_work = {clock.get(), static_cast<double>(length())};
    Groups groups = Groups::alone();
    groups.cp = std::make_shared<DelayedTransport>(
        std::make_shared<MpiTransport>(Communicator::duplicate(world.handle(), "cp")), clock,
        Link{0, bytes() / message});
    groups.parallel.cp_comm = "ring";
    const auto core = make_attention_core(kShape, groups);
    MemoryAccount account;
    Arena activations(account, MemoryClass::activations, "activations");
    Arena scratch(account, MemoryClass::buffers, "scratch");
    Operations operations(timed_table(), {}, account);
    const ExecSpace exec;
    Tensors tensors(exec);
    const Context context{exec, operations, activations, scratch};
    const Sequences sequences =
        make_sequences(exec, activations, kSequences, length(), world.rank(), ranks());
    const auto random = [&](const char* name, int heads) {
      return tensors.random(name, kShape.type, sequences.tokens, heads * kShape.dk);
    };
    const AnyView q = random("q", kShape.heads), k = random("k", kShape.kv_heads),
                  v = random("v", kShape.kv_heads), o = random("o", kShape.heads),
                  d_o = random("d_o", kShape.heads), dq = random("dq", kShape.heads),
                  dk = random("dk", kShape.kv_heads), dv = random("dv", kShape.kv_heads);
    AttentionCore::Saved saved;
    core->forward(context, sequences, q, k, v, saved, o);
    const double forward = clock->now();
    core->backward(context, sequences, saved, d_o, dq, dk, dv);
    return {forward, clock->now() - forward};
  }

  Communicator world = Communicator::world();
};

/// Each turn takes the longer of attention and messages; the last attention has none beside it, and
/// the last gradients come home without.
TEST_F(OverlapOfRing, EachTurnTakesTheLongerOfAttentionAndMessages) {
  if (ranks() == 1) GTEST_SKIP() << "nothing goes round";
  run(0, kForever);
  const Seconds attention{virtual_work.forward / ranks(), virtual_work.backward / ranks()};
  for (const double ratio : {0.25, 1.0, 4.0}) {
    SCOPED_TRACE(testing::Message() << "a turn takes " << ratio << " of attention");
    const double with_forward = ratio * attention.forward;
    const double forward = (ranks() - 1) * std::max(attention.forward, with_forward);
    EXPECT_NEAR(run(with_forward, 1.01 * attention.forward).forward, forward + attention.forward,
                0.1 * (forward + attention.forward));
    const double with_backward = ratio * attention.backward;
    const double backward = ranks() * std::max(attention.backward, with_backward) + with_backward;
    EXPECT_NEAR(run(with_backward, 1.01 * attention.backward).backward, backward, 0.1 * backward);
  }
}

/// Attention is one call, without polls: what its messages need behind the call before it is all
/// that they can have beside it.
TEST_F(OverlapOfRing, MessagesHaveAWindowBesideEachAttention) {
  if (ranks() == 1) GTEST_SKIP() << "nothing goes round";
  run(0, kForever);
  const double attention = virtual_work.forward / ranks();
  for (const double window : {0.25, 0.5, 1.0}) {
    SCOPED_TRACE(testing::Message() << "a window of " << window << " attentions");
    const double turn = attention * (1 + std::max(0.0, 1 - window));
    const double expected = (ranks() - 1) * turn + attention;
    EXPECT_NEAR(run(attention, window * attention).forward, expected, 0.05 * expected);
  }
}

}  // namespace
}  // namespace konclave
