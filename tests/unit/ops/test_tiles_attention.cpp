// Attention made of the kernels for tiles: emulated on every CPU, and as they are where the CPU has
// them.

#include "tests/unit/ops/attention_problems.hpp"
#include "tests/unit/ops/emulated_tiles.hpp"
#include "tiles/attention_softmax.hpp"
#include "tiles/attention_work.hpp"
#include "tiles/cpu_kernels.hpp"
#include "tiles/offers.hpp"
#include "tiles/tile_sums.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace konclave {
namespace {

constexpr tiles::Kernels kProducts = tiles::kernels_of<EmulatedTiles>();
constexpr tiles::AttentionKernels kRows = tiles::attention_kernels_by<EmulatedTiles>();

AttentionOffer emulated() {
  return {"emulated tiles", [](const AttentionShape&) { return std::string(); },
          &tiles::attention_workspace,
          [](const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
            tiles::attention_forward(exec, {kProducts, kRows}, shape, call);
          },
          [](const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
            tiles::attention_backward(exec, {kProducts, kRows}, shape, call);
          }};
}

/// Emulated tiles, and those of the CPU where it has them.
std::vector<AttentionOffer> all_tiles() {
  std::vector<AttentionOffer> offers{emulated()};
  if (tiles::why_no_kernels().empty()) offers.push_back(tiles::attention_offer());
  return offers;
}

using TileAttention = AttentionProblems;

TEST_F(TileAttention, AgreesWithReference) { compare_all(all_tiles(), DType::bf16); }

/// More keys than the backward pass holds scores of, and heads whose rows end within a block.
TEST_F(TileAttention, LongRowsAgreeWithReference) {
  const Rows rows = Rows().add(range(0, 300), range(0, 300)).add(range(160, 230), range(0, 261));
  for (const AttentionShape& shape :
       {AttentionShape{2, 1, 32, 96, 0.2, DType::bf16}, {2, 2, 40, 33, 0.15, DType::bf16}}) {
    tensors_ = Tensors(exec_);
    const Problem expected = problem(shape, rows);
    forward(reference_, shape, expected, rows.longest());
    backward(reference_, shape, expected, rows.longest());
    for (const AttentionOffer& offer : all_tiles()) {
      SCOPED_TRACE(std::string(offer.backend) + ": " + describe(shape));
      compare(offer, shape, rows, expected);
    }
  }
}

/// Keys of another sequence, or later ones, may hold anything: no block takes them in.
TEST_F(TileAttention, NothingBehindASequenceCounts) {
  const AttentionShape shape{1, 1, 40, 40, 0.2, DType::bf16};
  const std::vector<double> nan(40, std::numeric_limits<double>::quiet_NaN());
  for (const AttentionOffer& offer : all_tiles()) {
    const Problem p = problem(shape, Rows().add(range(0, 3), range(0, 3)).add({0}, {0}));
    for (const AnyView& view : {p.q, p.k, p.v, p.d_o}) from_doubles(exec_, nan, view.slice(3, 1));
    forward(offer, shape, p, 3);
    backward(offer, shape, p, 3);
    for (const AnyView& view : {p.o, p.lse, p.dq, p.dk, p.dv}) {
      for (const double value : to_doubles(exec_, view.slice(0, 3))) {
        EXPECT_FALSE(std::isnan(value)) << offer.backend;
      }
    }
  }
}

TEST_F(TileAttention, AQueryThatSeesNoKeyGivesZero) {
  const AttentionShape shape{1, 1, 2, 2, 1.0, DType::bf16};
  for (const AttentionOffer& offer : all_tiles()) {
    const Problem p = problem(shape, Rows().add({0, 1}, {1}));
    forward(offer, shape, p, 1);
    backward(offer, shape, p, 1);
    const auto first = [&](const AnyView& view) { return to_doubles(exec_, view.slice(0, 1)); };
    EXPECT_EQ(first(p.o), (std::vector<double>{0, 0})) << offer.backend;
    EXPECT_EQ(first(p.lse), std::vector<double>{-HUGE_VAL}) << offer.backend;
    EXPECT_EQ(first(p.dq), (std::vector<double>{0, 0})) << offer.backend;
  }
}

TEST_F(TileAttention, LargeScoresDoNotOverflow) {
  const AttentionShape shape{1, 1, 1, 1, 1.0, DType::bf16};
  for (const AttentionOffer& offer : all_tiles()) {
    const Problem p = problem(shape, Rows().add({2}, {0, 1, 2}));
    from_doubles(exec_, {300}, p.q);
    from_doubles(exec_, {1, -10, 1}, p.k);
    from_doubles(exec_, {2, 100, 4}, p.v);
    forward(offer, shape, p, 3);
    EXPECT_EQ(to_doubles(exec_, p.o), std::vector<double>{3}) << offer.backend;
    EXPECT_TRUE(close(to_doubles(exec_, p.lse), {300 + std::log(2.0)}, tolerance(DType::fp32)))
        << offer.backend;
  }
}

TEST(TileAttentionOffer, SaysWhatItCannotDo) {
  const AttentionOffer offer = tiles::attention_offer();
  for (const DType type : kTypes) {
    const std::string reason = offer.refuses({2, 1, 4, 4, 0.5, type});
    if (type == DType::bf16) {
      EXPECT_EQ(reason, tiles::why_no_kernels());
    } else {
      EXPECT_FALSE(reason.empty());
    }
  }
}

}  // namespace
}  // namespace konclave
