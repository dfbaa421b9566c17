#include "layers/embedding.hpp"
#include "model/loss.hpp"
#include "parallel/groups.hpp"
#include "tests/support/recording_transport.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace konclave {
namespace {

constexpr int kHidden = 6;
constexpr double kScale = 0.25;

int ranks() { return Communicator::world().size(); }

/// All ranks as one group tp.
Groups all_as_tp(bool sequence_parallel) {
  const Communicator world = Communicator::world();
  ParallelConfig parallel;
  parallel.tp = world.size();
  parallel.sp = sequence_parallel;
  return Groups::create(world, make_rank_grids(parallel, world.size()), parallel);
}

/// Sizes of a case. Rows are a multiple of 12, so that 1 to 4 ranks can share them.
struct Case {
  DType type = DType::fp64;
  bool sequence_parallel = false;
  int tokens = 24, vocabulary = 11;
};

/// Where the vocabulary divides no number of ranks, where each rank has a token, with two blocks of
/// rows.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool sequence_parallel : {false, true}) {
    for (const DType type : {DType::fp64, DType::fp32, DType::bf16}) {
      all.push_back({type, sequence_parallel, 24, 11});
      all.push_back({type, sequence_parallel, 36, 7});
      all.push_back({type, sequence_parallel, 12, ranks()});
      all.push_back({type, sequence_parallel, 1068, 13});
      all.push_back({type, sequence_parallel, 0, 5});
    }
  }
  return all;
}

std::string describe(const Case& wanted) {
  return std::string(name_of(wanted.type)) + ", sp " + std::to_string(wanted.sequence_parallel) +
         ", T = " + std::to_string(wanted.tokens) + ", V = " + std::to_string(wanted.vocabulary);
}

/// An embedding that serves as head: the same numbers whoever has which part.
struct Vocabulary : Workbench {
  Vocabulary(const Case& size, const Groups& groups)
      : wanted(size),
        tp(groups),
        embedding("embedding", wanted.vocabulary, kHidden, wanted.type, 1.0, tp, storage()) {
    embedding.weight().initialise(exec, /*seed=*/3);
    set(embedding.weight().grad(), 0.5);
    embedding.weight().prepare(exec, operations, 0);
  }

  /// This rank's rows of the region outside.
  AnyView outside(const AnyView& all) const {
    if (!tp.shares_rows()) return all;
    const std::int64_t rows = tp.rows_outside(all.extent(0));
    return all.slice(tp.rank() * rows, rows);
  }
  /// Rows of the region outside, to be written.
  AnyView rows_outside() {
    return tensors.poisoned(wanted.type, tp.rows_outside(wanted.tokens), kHidden);
  }
  const Parameter& weight() { return embedding.weight(); }
  std::vector<double> gradient() { return to_doubles(exec, weight().grad()); }
  /// The number of a token within this rank's part, or -1.
  int local(int token) {
    const Shard& shard = weight().shard();
    const auto place = static_cast<int>(token - shard.offset[0]);
    return place < 0 || place >= shard.extent[0] ? -1 : place;
  }

  void embed(const std::vector<int>& tokens, const AnyView& y) {
    std::vector<int> mine;
    for (const int token : tokens) mine.push_back(local(token));
    embedding.forward(context(), tensors.integers(mine), y);
  }
  void embed_backward(const std::vector<int>& tokens, const AnyIn& dy) {
    std::vector<int> order, offsets{0}, ids;
    for (int id = 0; id < weight().shard().extent[0]; ++id) {
      for (int t = 0; t < static_cast<int>(tokens.size()); ++t) {
        if (local(tokens[static_cast<std::size_t>(t)]) == id) order.push_back(t);
      }
      if (static_cast<int>(order.size()) == offsets.back()) continue;
      offsets.push_back(static_cast<int>(order.size()));
      ids.push_back(id);
    }
    embedding.backward(
        context(), {tensors.integers(order), tensors.integers(offsets), tensors.integers(ids)}, dy);
  }
  /// Losses of all rows; d_hidden may be empty.
  std::vector<double> losses(const std::vector<int>& labels, const AnyIn& hidden,
                             const AnyView& d_hidden) {
    const auto result = tensors.poisoned(DType::fp64, wanted.tokens).as1<double>();
    const LossHead head{&weight(), hidden, tensors.integers(labels), kScale, result, d_hidden};
    loss_heads(context(), tp, std::span(&head, 1));
    return to_host(exec, result);
  }

  Case wanted;
  TensorParallel tp;
  Embedding embedding;
};

/// The vocabulary over all ranks beside the same on this rank alone.
struct Comparison {
  explicit Comparison(const Case& size)
      : wanted(size), groups(all_as_tp(wanted.sequence_parallel)), whole(wanted, Groups::alone()) {
    groups.tp = std::make_shared<RecordingTransport>(groups.tp, log);
    mine = std::make_unique<Vocabulary>(wanted, groups);
    hidden = whole.tensors.random("hidden", wanted.type, wanted.tokens, kHidden);
    for (int t = 0; t < wanted.tokens; ++t) {
      tokens.push_back((t * 5 + t / 7) % wanted.vocabulary);
      labels.push_back(t % 5 == 3 ? -1 : (t * 7 + t / 3) % wanted.vocabulary);
    }
  }
  /// This rank's part of the whole vocabulary's gradient.
  std::vector<double> own_gradient() {
    const Shard& shard = mine->weight().shard();
    return to_doubles(whole.exec, whole.weight().grad().slice(shard.offset[0], shard.extent[0]));
  }
  void expect_close(const AnyIn& actual, const AnyIn& expected, const std::string& what) const {
    EXPECT_TRUE(close(whole.exec, actual, expected, tolerance(wanted.type), /*typical=*/1)) << what;
  }
  void expect_same_on_all_ranks(const std::vector<double>& values, const std::string& what) const {
    const auto bytes = std::as_bytes(std::span(values));
    const std::vector<std::byte> all = groups.world->gather(bytes);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i] == bytes[i % bytes.size()]) continue;
      ADD_FAILURE() << what << " differ between ranks";
      return;
    }
  }

  Case wanted;
  Groups groups;
  std::vector<TransportCall> log;  ///< of the group tp
  Vocabulary whole;
  std::unique_ptr<Vocabulary> mine;
  AnyView hidden;
  std::vector<int> tokens, labels;
};

TEST(VocabularyOverRanks, EmbeddingIsThatOfOneRank) {
  for (const Case& wanted : cases()) {
    SCOPED_TRACE(describe(wanted));
    Comparison c(wanted);
    const AnyView y = c.whole.rows_outside(), part = c.mine->rows_outside();
    c.whole.embed(c.tokens, y);
    c.mine->embed(c.tokens, part);
    EXPECT_EQ(to_doubles(c.whole.exec, part), to_doubles(c.whole.exec, c.mine->outside(y)));

    const AnyView dy = c.whole.tensors.random("dy", wanted.type, wanted.tokens, kHidden);
    c.whole.embed_backward(c.tokens, dy);
    c.mine->embed_backward(c.tokens, c.mine->outside(dy));
    EXPECT_EQ(c.mine->gradient(), c.own_gradient()) << "gradient of W";
  }
}

TEST(VocabularyOverRanks, LossIsThatOfOneRank) {
  for (const Case& wanted : cases()) {
    SCOPED_TRACE(describe(wanted));
    Comparison c(wanted);
    const AnyView d_whole = c.whole.rows_outside(), d_mine = c.mine->rows_outside();
    const std::vector<double> expected = c.whole.losses(c.labels, c.hidden, d_whole);
    const std::vector<double> actual = c.mine->losses(c.labels, c.mine->outside(c.hidden), d_mine);
    EXPECT_TRUE(close(actual, expected, tolerance(accum_type(wanted.type)), /*typical=*/1));
    c.expect_same_on_all_ranks(actual, "losses");
    c.expect_close(d_mine, c.mine->outside(d_whole), "d_hidden");
    EXPECT_TRUE(close(c.mine->gradient(), c.own_gradient(), tolerance(wanted.type), /*typical=*/1))
        << "gradient of W";

    const std::vector<double> before = c.mine->gradient();
    EXPECT_EQ(c.mine->losses(c.labels, c.mine->outside(c.hidden), {}), actual)
        << "without gradients";
    EXPECT_EQ(c.mine->gradient(), before) << "gradient of W where none is wanted";
  }
}

TEST(VocabularyOverRanks, EveryRankCanHaveAllLabelsOrNone) {
  for (const bool sequence_parallel : {false, true}) {
    Comparison c({DType::fp64, sequence_parallel});
    for (int label = -1; label < c.wanted.vocabulary; ++label) {
      SCOPED_TRACE(label);
      const std::vector<int> labels(static_cast<std::size_t>(c.wanted.tokens), label);
      const AnyView d_whole = c.whole.rows_outside(), d_mine = c.mine->rows_outside();
      EXPECT_TRUE(close(c.mine->losses(labels, c.mine->outside(c.hidden), d_mine),
                        c.whole.losses(labels, c.hidden, d_whole), tolerance(DType::fp64), 1));
      c.expect_close(d_mine, c.mine->outside(d_whole), "d_hidden");
    }
  }
}

TEST(VocabularyOverRanks, LogitsAreThoseOfOneRank) {
  for (const Case& wanted : cases()) {
    SCOPED_TRACE(describe(wanted));
    Comparison c(wanted);
    const DType type = accum_type(wanted.type);
    const auto logits = [&](Vocabulary& vocabulary) {
      const AnyView result = vocabulary.tensors.poisoned(type, wanted.tokens, wanted.vocabulary);
      head_logits(vocabulary.context(), vocabulary.tp, vocabulary.weight(), c.hidden, result);
      return to_doubles(vocabulary.exec, result);
    };
    const std::vector<double> mine = logits(*c.mine);
    EXPECT_TRUE(close(mine, logits(c.whole), tolerance(type), /*typical=*/1));
    c.expect_same_on_all_ranks(mine, "logits");
  }
}

TEST(VocabularyOverRanks, ANaNOfOneRankIsInTheLossesOfAll) {
  Comparison c({});
  if (c.mine->tp.rank() == ranks() - 1) {
    const AnyView value = c.mine->embedding.weight().value();
    std::vector<double> values = to_doubles(c.mine->exec, value);
    values.back() = std::numeric_limits<double>::quiet_NaN();
    from_doubles(c.mine->exec, values, value);
    c.mine->embedding.weight().prepare(c.mine->exec, c.mine->operations, 0);
  }
  const std::vector<double> losses = c.mine->losses(c.labels, c.hidden, {});
  for (std::size_t t = 0; t < losses.size(); ++t) {
    EXPECT_EQ(std::isnan(losses[t]), c.labels[t] >= 0) << t;
  }
}

/// Bytes that this rank sends and receives, its own included.
std::pair<std::size_t, std::size_t> bytes(const std::vector<TransportCall>& calls) {
  std::pair<std::size_t, std::size_t> sum;
  for (const TransportCall& call : calls) {
    sum.first += call.sent_bytes;
    sum.second += call.received_bytes;
  }
  return sum;
}

TEST(VocabularyOverRanks, OnlyRowsAndThreeNumbersOfEachAreExchanged) {
  for (const bool sequence_parallel : {false, true}) {
    Comparison c({DType::bf16, sequence_parallel, 1068, 13});
    const auto all = static_cast<std::size_t>(ranks());
    const std::size_t rows = 1068U * kHidden * sizeof(Bf16), numbers = 1068U * 3 * sizeof(float);
    const AnyView hidden = c.mine->outside(c.hidden), d_hidden = c.mine->rows_outside();
    c.mine->losses(c.labels, hidden, {});
    if (all == 1) {
      EXPECT_TRUE(c.log.empty()) << "one rank exchanges nothing";
      continue;
    }
    // In two blocks of rows.
    ASSERT_EQ(c.log.size(), sequence_parallel ? 3U : 2U);
    EXPECT_EQ(bytes(c.log), std::make_pair(numbers + (sequence_parallel ? rows / all : 0),
                                           numbers * all + (sequence_parallel ? rows : 0)));
    c.log.clear();
    c.mine->losses(c.labels, hidden, d_hidden);
    // Rows come in and leave in equal parts, or are summed: an all-to-all and an all-gather.
    ASSERT_EQ(c.log.size(), 4U);
    EXPECT_EQ(bytes(c.log), std::make_pair(numbers + rows + rows / all, numbers * all + 2 * rows));

    c.log.clear();
    c.mine->embed(c.tokens, c.mine->rows_outside());
    c.mine->embed_backward(c.tokens, hidden);
    EXPECT_EQ(bytes(c.log), std::make_pair(rows + rows / all, 2 * rows));
  }
}

}  // namespace
}  // namespace konclave
