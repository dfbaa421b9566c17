#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/ops/offers.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace konclave {
namespace {

class GroupedGemm : public testing::Test {
 protected:
  /// Random operands of `rows` rows, which may be more than the offsets speak of: those keep what
  /// they have. What is to be overwritten starts as NaN.
  std::vector<double> multiply(const GroupedGemmOffer& offer, const GroupedGemmShape& shape,
                               const std::vector<int>& offsets, int rows) {
    const GemmShape& each = shape.each;
    const bool forward = each.kind == GemmKind::forward;
    const bool of_weight = each.kind == GemmKind::weight_gradient;
    const AnyIn a = tensors_.random("a", each.type, rows, forward ? each.in : each.out);
    const AnyIn b = of_weight ? tensors_.random("b", each.type, rows, each.in)
                              : tensors_.random("b", each.type, shape.experts, each.out, each.in);
    const AnyView c = of_weight
                          ? tensors_.random("c", each.result, shape.experts, each.out, each.in)
                          : tensors_.random("c", each.result, rows, forward ? each.out : each.in);
    if (!each.accumulate) {
      tensors_.poison(of_weight ? c : c.slice(offsets.front(), offsets.back() - offsets.front()));
    }
    const PreparedWeight weight =
        of_weight ? PreparedWeight() : prepare(exec_, tensors_, offer.packing, each, b);
    offer.run(exec_, shape,
              {tensors_.integers(offsets), a, &weight, of_weight ? b : AnyIn(), c,
               tensors_.workspace(offer.workspace(shape, rows), each.type)});
    return to_doubles(exec_, c);
  }

  ExecSpace exec_;
  Tensors tensors_{exec_};
  std::vector<GroupedGemmOffer> offers_ = built_backends().grouped_gemm;
  GroupedGemmOffer reference_ = offers_.back();
};

TEST_F(GroupedGemm, EveryOfferAgreesWithReference) {
  constexpr std::pair<int, int> kExtents[] = {{1, 1}, {5, 3}, {17, 64}, {65, 31}};
  const std::vector<int> no_rows{0, 0, 0}, one_expert{0, 5}, one_row_each{0, 1, 2, 3},
      some_empty{0, 0, 7, 7, 20, 20}, all_to_one{0, 0, 0, 29, 29}, long_and_short{0, 513, 514},
      part_of_the_rows{2, 5, 9};
  for (const auto& [out, in] : kExtents) {
    for (const GemmShape& each : all_shapes(out, in)) {
      for (const std::vector<int>& offsets : {no_rows, one_expert, one_row_each, some_empty,
                                              all_to_one, long_and_short, part_of_the_rows}) {
        const GroupedGemmShape shape{static_cast<int>(offsets.size()) - 1, each};
        const std::vector<GroupedGemmOffer> others = accepting(offers_, shape);
        if (others.empty()) continue;
        tensors_ = Tensors(exec_);
        const int rows = offsets == part_of_the_rows ? 11 : offsets.back();
        const std::vector<double> expected = multiply(reference_, shape, offsets, rows);
        for (const GroupedGemmOffer& offer : others) {
          EXPECT_TRUE(
              close(multiply(offer, shape, offsets, rows), expected, tolerance(judged_as(each))))
              << offer.backend << ": " << describe(shape) << ", offsets "
              << testing::PrintToString(offsets);
        }
      }
    }
  }
}

/// Two experts, W = ((1 2)) and ((3 4)); the first has no rows, the second the row (5 6).
TEST_F(GroupedGemm, ReferenceIsRightByHand) {
  const AnyView w = tensors_.poisoned(DType::fp64, 2, 1, 2);
  from_doubles(exec_, {1, 2, 3, 4}, w);
  const PreparedWeight weight{w};
  const View1<const int> offsets = tensors_.integers({0, 0, 1});
  const AnyIn x = tensors_.values(DType::fp64, {5, 6}, 1, 2);
  const AnyIn dy = tensors_.values(DType::fp64, {10}, 1, 1);
  const AnyView y = tensors_.poisoned(DType::fp64, 1, 1);
  const AnyView dx = tensors_.poisoned(DType::fp64, 1, 2);
  const AnyView dw = tensors_.poisoned(DType::fp64, 2, 1, 2);
  const auto shape = [](GemmKind kind) {
    return GroupedGemmShape{2, {kind, 1, 2, DType::fp64, DType::fp64, false}};
  };

  reference_.run(exec_, shape(GemmKind::forward), {offsets, x, &weight, {}, y, {}});
  reference_.run(exec_, shape(GemmKind::data_gradient), {offsets, dy, &weight, {}, dx, {}});
  reference_.run(exec_, shape(GemmKind::weight_gradient), {offsets, dy, nullptr, x, dw, {}});

  EXPECT_EQ(to_doubles(exec_, y), std::vector<double>{39});
  EXPECT_EQ(to_doubles(exec_, dx), (std::vector<double>{30, 40}));
  EXPECT_EQ(to_doubles(exec_, dw), (std::vector<double>{0, 0, 50, 60}));
}

TEST_F(GroupedGemm, BackendsAcceptTheirTypes) {
  for (const GemmShape& each : all_shapes(8, 8)) {
    const GroupedGemmShape shape{3, each};
    const bool bf16 = each.type == DType::bf16 || each.result == DType::bf16;
    const bool fp64 = each.type == DType::fp64 || each.result == DType::fp64;
    expect_answer(offers_, "onednn", shape, kHostAccessible && !fp64);
    expect_answer(offers_, "kokkos_kernels", shape, !bf16 && each.type == each.result);
    expect_answer(offers_, "reference", shape, true);
  }
}

}  // namespace
}  // namespace konclave
