#include "comm/mpi_transport.hpp"
#include "layers/attention_core.hpp"
#include "layers/sequences.hpp"
#include "ops/backend_list.hpp"
#include "ops/embedding.hpp"
#include "tests/support/close.hpp"
#include "tests/support/delayed_transport.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/recording_transport.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace konclave {
namespace {

constexpr const char* kWays[] = {"ring", "all_gather", "a2a"};
constexpr DType kTypes[] = {DType::bf16, DType::fp32, DType::fp64};

int ranks() { return Communicator::world().size(); }

/// A micro-batch of `count` sequences of 2 `chunk` positions for each rank.
struct Case {
  AttentionShape shape;
  int count = 1, chunk = 1;
};

AttentionShape shape(int heads, int kv_heads, int dk, int dv, DType type) {
  return {heads, kv_heads, dk, dv, 0.4, type};
}

/// Shapes that every way can do: heads and kv_heads are multiples of the ranks.
std::vector<AttentionShape> divisible_shapes(DType type) {
  const int r = ranks();
  return {shape(4 * r, 2 * r, 5, 5, type), shape(3 * r, r, 4, 7, type)};
}
std::vector<AttentionShape> shapes_for(const std::string& way, DType type) {
  std::vector<AttentionShape> shapes = divisible_shapes(type);
  if (way != "a2a") shapes.push_back(shape(5, 1, 16, 16, type));
  return shapes;
}

/// What an attention core reads and writes.
struct Side {
  Sequences sequences;
  AnyView q, k, v, d_o, o, dq, dk, dv;
};

/// Memory and operations of one side.
struct Bench {
  explicit Bench(const std::string& backend)
      : operations(built_backends(), {"auto", "auto", backend}, account) {}

  void run(const AttentionCore& core, const Side& side) {
    const Context context{exec, operations, activations, scratch};
    AttentionCore::Saved saved;
    core.forward(context, side.sequences, side.q, side.k, side.v, saved, side.o);
    core.backward(context, side.sequences, saved, side.d_o, side.dq, side.dk, side.dv);
  }

  ExecSpace exec;
  Tensors tensors{exec};
  MemoryAccount account;
  Arena activations{account, MemoryClass::activations, "activations"};
  Arena scratch{account, MemoryClass::buffers, "scratch"};
  Operations operations;
};

/// Attention over all ranks beside the same on this rank alone, with the rows of all.
class Comparison {
 public:
  Comparison(const Case& wanted, const std::string& way, const std::string& backend,
             Groups::Group cp)
      : mine_bench(backend), wanted_(wanted), rank_(cp->rank()) {
    const Groups alone = Groups::alone();
    Groups groups = alone;
    groups.cp = std::move(cp);
    groups.parallel.cp_comm = way;
    core_ = make_attention_core(wanted.shape, groups);
    whole_core_ = make_attention_core(wanted.shape, alone);
    make_whole();
    make_mine();
  }

  void run() {
    whole_bench_.run(*whole_core_, whole_);
    mine_bench.run(*core_, mine);
  }
  void expect_same() {
    // In bf16 the results of each step of the ring are rounded before they are added up, and the
    // terms of a gradient, of products of rows, may cancel.
    const bool narrow = wanted_.shape.type == DType::bf16;
    const Tolerance allowed = narrow ? Tolerance{2e-2, 2e-2} : tolerance(wanted_.shape.type);
    const double typical = narrow ? 4 : 1;
    const ExecSpace& exec = mine_bench.exec;
    EXPECT_TRUE(close(exec, mine.o, own(whole_.o), allowed, typical)) << "o";
    EXPECT_TRUE(close(exec, mine.dq, own(whole_.dq), allowed, typical)) << "dq";
    EXPECT_TRUE(close(exec, mine.dk, own(whole_.dk), allowed, typical)) << "dk";
    EXPECT_TRUE(close(exec, mine.dv, own(whole_.dv), allowed, typical)) << "dv";
  }

  const AttentionCore& core() const { return *core_; }

  Bench mine_bench;
  Side mine;

 private:
  int length() const { return 2 * ranks() * wanted_.chunk; }

  void make_whole() {
    const AttentionShape& s = wanted_.shape;
    const int rows = wanted_.count * length();
    Tensors& tensors = whole_bench_.tensors;
    whole_ = {
        make_sequences(whole_bench_.exec, whole_bench_.activations, wanted_.count, length(), 0, 1),
        tensors.random("q", s.type, rows, s.heads * s.dk),
        tensors.random("k", s.type, rows, s.kv_heads * s.dk),
        tensors.random("v", s.type, rows, s.kv_heads * s.dv),
        tensors.random("d_o", s.type, rows, s.heads * s.dv),
        tensors.poisoned(s.type, rows, s.heads * s.dv),
        tensors.poisoned(s.type, rows, s.heads * s.dk),
        tensors.poisoned(s.type, rows, s.kv_heads * s.dk),
        tensors.poisoned(s.type, rows, s.kv_heads * s.dv)};
  }
  void make_mine() {
    std::vector<int> rows;
    for (int i = 0; i < wanted_.count; ++i) {
      for (const int position : zigzag_positions(length(), rank_, ranks())) {
        rows.push_back(i * length() + position);
      }
    }
    rows_ = mine_bench.tensors.integers(rows);
    const auto poisoned_like = [&](const AnyIn& of_all) {
      return mine_bench.tensors.poisoned(of_all.type(), rows.size(), of_all.extent(1));
    };
    mine = {make_sequences(mine_bench.exec, mine_bench.activations, wanted_.count, length(), rank_,
                           ranks()),
            own(whole_.q),
            own(whole_.k),
            own(whole_.v),
            own(whole_.d_o),
            poisoned_like(whole_.o),
            poisoned_like(whole_.dq),
            poisoned_like(whole_.dk),
            poisoned_like(whole_.dv)};
  }
  /// This rank's rows.
  AnyView own(const AnyIn& of_all) {
    const AnyView view = mine_bench.tensors.poisoned(of_all.type(), rows_.size(), of_all.extent(1));
    ops::gather_rows(mine_bench.exec, of_all, rows_, view);
    return view;
  }

  Case wanted_;
  int rank_;
  View1<const int> rows_;
  std::unique_ptr<const AttentionCore> core_, whole_core_;
  Bench whole_bench_{"reference"};
  Side whole_;
};

Groups::Group all_ranks() {
  return std::make_shared<MpiTransport>(
      Communicator::duplicate(Communicator::world().handle(), "cp"));
}

class ContextParallel : public testing::TestWithParam<const char*> {
 protected:
  std::string way() const { return GetParam(); }
};

TEST_P(ContextParallel, IsTheAttentionOfOneRank) {
  const Groups::Group cp = all_ranks();
  for (const DType type : kTypes) {
    for (const AttentionShape& shape : shapes_for(way(), type)) {
      for (const AttentionOffer& offer : built_backends().attention) {
        if (!offer.refuses(shape).empty()) continue;
        for (const auto& [count, chunk] : {std::pair{3, 2}, {1, 33}, {0, 2}}) {
          SCOPED_TRACE(testing::Message() << way() << ", rank " << cp->rank() << " of " << ranks()
                                          << ", " << offer.backend << ", " << describe(shape)
                                          << ", " << count << " sequences in chunks of " << chunk);
          Comparison sides({shape, count, chunk}, way(), std::string(offer.backend), cp);
          sides.run();
          sides.expect_same();
        }
      }
    }
  }
}

/// What arrives is NaN until it was waited for, and what is sent must not change on the way.
TEST_P(ContextParallel, NothingIsTouchedOnItsWay) {
  const auto delayed = std::make_shared<DelayedTransport>(
      all_ranks(), std::make_shared<VirtualClock>(), Link{1.0, 1.0});
  Comparison sides({divisible_shapes(DType::fp32)[0], 2, 3}, way(), "auto", delayed);
  sides.run();
  sides.expect_same();
}

/// Bytes that one side of a rank has of each tensor.
struct Bytes {
  std::size_t q, k, v, o, dk, dv;

  explicit Bytes(const Side& side)
      : q(side.q.bytes()),
        k(side.k.bytes()),
        v(side.v.bytes()),
        o(side.o.bytes()),
        dk(wide(side.dk)),
        dv(wide(side.dv)) {}
  static std::size_t wide(const AnyView& view) {
    return static_cast<std::size_t>(view.size()) * size_of(accum_type(view.type()));
  }
};

struct Sums {
  std::size_t sent = 0, received = 0;
};
Sums sums_of(const std::vector<TransportCall>& calls) {
  Sums sums;
  for (const TransportCall& call : calls) {
    sums.sent += call.sent_bytes;
    sums.received += call.received_bytes;
  }
  return sums;
}

/// Of one direction, by the formulas.
struct Expected {
  Sums forward, backward;
};
Expected expected_bytes(const std::string& way, const Bytes& each) {
  const auto r = static_cast<std::size_t>(ranks());
  if (r == 1) return {};
  const std::size_t keys = each.k + each.v;
  if (way == "ring") {
    const std::size_t round = (r - 1) * keys;
    const std::size_t back = round + r * (each.dk + each.dv);
    return {{round, round}, {back, back}};
  }
  if (way == "all_gather") return {{keys, r * keys}, {keys + r * keys, 2 * r * keys}};
  const std::size_t all = each.q + keys + each.o;
  return {{all, all}, {all, all}};
}

TEST_P(ContextParallel, BytesAreThoseOfTheFormulas) {
  for (const DType type : kTypes) {
    SCOPED_TRACE(std::string(name_of(type)) + ", " + way());
    std::vector<TransportCall> log;
    const auto recorded = std::make_shared<RecordingTransport>(all_ranks(), log);
    Comparison sides({divisible_shapes(type)[1], 2, 3}, way(), "auto", recorded);
    Bench& bench = sides.mine_bench;
    const Side& mine = sides.mine;
    const Context context{bench.exec, bench.operations, bench.activations, bench.scratch};
    AttentionCore::Saved saved;
    sides.core().forward(context, mine.sequences, mine.q, mine.k, mine.v, saved, mine.o);
    const Sums forward = sums_of(log);
    log.clear();
    sides.core().backward(context, mine.sequences, saved, mine.d_o, mine.dq, mine.dk, mine.dv);
    const Sums backward = sums_of(log);

    const Expected expected = expected_bytes(way(), Bytes(mine));
    EXPECT_EQ(forward.sent, expected.forward.sent);
    EXPECT_EQ(forward.received, expected.forward.received);
    EXPECT_EQ(backward.sent, expected.backward.sent);
    EXPECT_EQ(backward.received, expected.backward.received);
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, ContextParallel, testing::ValuesIn(kWays),
                         [](const auto& way) { return std::string(way.param); });

/// Scratch memory that is counted to the byte: it starts with a view that is never taken back, and
/// then has a block of its own for each view that is as large.
struct CountedScratch {
  static constexpr std::int64_t kBlock = std::int64_t{1} << 20;

  CountedScratch() { arena.make(DType::fp64, kBlock / 8); }
  /// At most in use at once beside the first view; what is smaller than a block shares a little
  /// one.
  std::int64_t blocks() const { return account.peak(MemoryClass::buffers) / kBlock - 1; }

  MemoryAccount account;
  Arena arena{account, MemoryClass::buffers, "scratch"};
};

TEST(RingAttention, HoldsAtMostTwoChunksOfKeysAndValues) {
  if (ranks() == 1) GTEST_SKIP() << "nothing goes round";
  const AttentionShape shape{2, 2, 64, 64, 0.125, DType::fp64};
  const std::int64_t chunks = std::min(2, ranks() - 1);
  Comparison sides({shape, 64, 8}, "ring", "auto", all_ranks());
  Bench& bench = sides.mine_bench;
  const Side& mine = sides.mine;
  for (const AnyView& view : {mine.q, mine.k, mine.v, mine.o}) {
    ASSERT_EQ(view.bytes(), static_cast<std::size_t>(CountedScratch::kBlock));
  }
  AttentionCore::Saved saved;

  CountedScratch forward, backward;
  sides.core().forward({bench.exec, bench.operations, bench.activations, forward.arena},
                       mine.sequences, mine.q, mine.k, mine.v, saved, mine.o);
  EXPECT_EQ(forward.blocks(), 2 * chunks + 1) << "beside them o of a step";

  sides.core().backward({bench.exec, bench.operations, bench.activations, backward.arena},
                        mine.sequences, saved, mine.d_o, mine.dq, mine.dk, mine.dv);
  EXPECT_EQ(backward.blocks(), 2 * chunks + 5)
      << "beside them two pairs of sums of gradients, and dq of a step";
}

TEST(HeadExchange, HeadsThatCannotBeSharedOutAreRefused) {
  if (ranks() == 1) GTEST_SKIP() << "one rank has all heads";
  Groups groups = Groups::alone();
  groups.cp = all_ranks();
  groups.parallel.cp_comm = "a2a";
  expect_error([&] { make_attention_core(shape(2 * ranks(), 1, 4, 4, DType::fp32), groups); },
               ExitCode::internal, {"1 key/value heads", std::to_string(ranks()) + " ranks"});
}

TEST(AttentionCore, OtherWaysAreRefused) {
  if (ranks() == 1) GTEST_SKIP() << "one rank needs no way";
  Groups groups = Groups::alone();
  groups.cp = all_ranks();
  groups.parallel.cp_comm = "mail";
  EXPECT_THROW(make_attention_core(shape(1, 1, 4, 4, DType::fp32), groups), Error);
}

}  // namespace
}  // namespace konclave
