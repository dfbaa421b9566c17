// The kernels for tiles: emulated on every CPU, so that all but the instructions themselves is
// judged everywhere, and as they are where the CPU has them.

#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/ops/emulated_tiles.hpp"
#include "tests/unit/ops/offers.hpp"
#include "tiles/cpu_kernels.hpp"
#include "tiles/offers.hpp"
#include "tiles/packing.hpp"
#include "tiles/product.hpp"
#include "tiles/tile_sums.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace konclave {
namespace {

constexpr tiles::Kernels kEmulated = tiles::kernels_of<EmulatedTiles>();

/// Products of bf16, plain and grouped, that some kernels run.
class TileProducts : public testing::Test {
 protected:
  AnyIn left(const GemmShape& shape, int rows) {
    const bool forward = shape.kind == GemmKind::forward;
    return tensors_.random("a", shape.type, rows, forward ? shape.in : shape.out);
  }
  PreparedWeight prepared(const tiles::Kernels& kernels, const GemmShape& shape, const AnyIn& w) {
    const WeightForm form = tiles::weight_form(shape);
    const std::int64_t matrices = w.rank() == 3 ? w.extent(0) : 1;
    const AnyView packed = tensors_.poisoned(form.type, matrices, form.elements);
    const AnyIn rows = w.reshape(matrices * shape.out, shape.in);
    for (std::int64_t e = 0; e < matrices; ++e) {
      tiles::pack_weight(exec_, kernels, shape, rows.slice(e * shape.out, shape.out), 0,
                         packed.slice(e, 1));
    }
    return {w, packed, form.layout};
  }
  AnyView workspace(const GemmShape& shape, int rows) {
    return tensors_.workspace(tiles::product_workspace(shape, rows), shape.type);
  }

  /// A product and what the reference makes of it.
  void expect_product(const tiles::Kernels& kernels, const GemmShape& shape, int rows) {
    const bool of_weight = shape.kind == GemmKind::weight_gradient;
    const AnyIn a = left(shape, rows);
    const AnyIn b = tensors_.random("b", shape.type, of_weight ? rows : shape.out, shape.in);
    const AnyView c = tensors_.random("c", shape.result, of_weight ? shape.out : rows,
                                      shape.kind == GemmKind::forward ? shape.out : shape.in);
    const AnyView expected = tensors_.copy(c);
    if (!shape.accumulate) tensors_.poison(c);
    const PreparedWeight weight = of_weight ? PreparedWeight() : prepared(kernels, shape, b);
    const AnyIn second = of_weight ? b : AnyIn();

    tiles::multiply(exec_, kernels, shape, {a, &weight, second, c, workspace(shape, rows)});

    const PreparedWeight stored{b};
    built_backends().gemm.back().run(exec_, shape, {a, &stored, second, expected, {}});
    EXPECT_TRUE(close(exec_, c, expected, tolerance(judged_as(shape))))
        << describe(shape) << ", " << rows << " rows";
  }

  void expect_grouped(const tiles::Kernels& kernels, const GroupedGemmShape& shape,
                      const std::vector<int>& offsets, int rows) {
    const GemmShape& each = shape.each;
    const bool of_weight = each.kind == GemmKind::weight_gradient;
    const AnyIn a = left(each, rows);
    const AnyIn b = of_weight ? tensors_.random("b", each.type, rows, each.in)
                              : tensors_.random("b", each.type, shape.experts, each.out, each.in);
    const AnyView c = of_weight
                          ? tensors_.random("c", each.result, shape.experts, each.out, each.in)
                          : tensors_.random("c", each.result, rows,
                                            each.kind == GemmKind::forward ? each.out : each.in);
    const AnyView expected = tensors_.copy(c);
    const PreparedWeight weight = of_weight ? PreparedWeight() : prepared(kernels, each, b);
    const AnyIn second = of_weight ? b : AnyIn();
    const View1<const int> first = tensors_.integers(offsets);

    tiles::multiply(exec_, kernels, shape, {first, a, &weight, second, c, workspace(each, rows)});

    const PreparedWeight stored{b};
    built_backends().grouped_gemm.back().run(exec_, shape,
                                             {first, a, &stored, second, expected, {}});
    EXPECT_TRUE(close(exec_, c, expected, tolerance(judged_as(each))))
        << describe(shape) << ", offsets " << testing::PrintToString(offsets);
  }

  static std::vector<GemmShape> products(int out, int in) {
    std::vector<GemmShape> shapes;
    for (const GemmShape& shape : all_shapes(out, in)) {
      if (shape.type == DType::bf16 && shape.result != DType::fp64) shapes.push_back(shape);
    }
    return shapes;
  }

  void expect_all_products(const tiles::Kernels& kernels) {
    constexpr std::pair<int, int> kExtents[] = {{1, 1},   {2, 7},   {31, 17},  {32, 64},
                                                {33, 96}, {64, 33}, {65, 127}, {160, 32}};
    for (const auto& [out, in] : kExtents) {
      for (const GemmShape& shape : products(out, in)) {
        for (const int rows : {0, 1, 15, 16, 17, 32, 33, 61, 97}) {
          tensors_ = Tensors(exec_);
          expect_product(kernels, shape, rows);
        }
      }
    }
  }

  void expect_all_grouped(const tiles::Kernels& kernels) {
    for (const auto& [out, in] : {std::pair(33, 64), std::pair(96, 5)}) {
      for (const GemmShape& each : products(out, in)) {
        for (const std::vector<int>& offsets :
             {std::vector{0, 0, 0}, {0, 1, 2, 3}, {0, 0, 40, 40, 73}, {2, 34, 51}}) {
          tensors_ = Tensors(exec_);
          const GroupedGemmShape shape{static_cast<int>(offsets.size()) - 1, each};
          expect_grouped(kernels, shape, offsets, offsets.back() + 2);
        }
      }
    }
  }

  ExecSpace exec_;
  Tensors tensors_{exec_};
};

TEST_F(TileProducts, EmulatedAgreesWithReference) { expect_all_products(kEmulated); }

TEST_F(TileProducts, EmulatedGroupsAgreeWithReference) { expect_all_grouped(kEmulated); }

TEST_F(TileProducts, OfTheCpuAgreesWithReference) {
  if (const std::string reason = tiles::why_no_kernels(); !reason.empty()) GTEST_SKIP() << reason;
  for (const tiles::CpuKernels& found : tiles::cpu_kernels()) {
    SCOPED_TRACE(found.remark);
    expect_all_products(*found.kernels);
    expect_all_grouped(*found.kernels);
  }
}

/// Sums over more rows than the workspace holds, and left factors that the cache does not hold.
TEST_F(TileProducts, LongOnesAreCut) {
  for (const GemmShape& shape : products(40, 24)) {
    tensors_ = Tensors(exec_);
    expect_product(kEmulated, shape, 1057);
  }
  expect_product(kEmulated, {GemmKind::forward, 8, 8224, DType::bf16, DType::fp32, false}, 130);
}

/// Rows behind a block that is not full, and columns behind a row, may hold anything.
TEST_F(TileProducts, NothingBehindTheOperandsCounts) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (const int in : {32, 37}) {
    const GemmShape shape{GemmKind::forward, 5, in, DType::bf16, DType::fp32, false};
    const AnyView a = tensors_.random("a", DType::bf16, 9, in);
    from_doubles(exec_, std::vector<double>(static_cast<std::size_t>(in), kNan), a.slice(3, 1));
    const PreparedWeight weight =
        prepared(kEmulated, shape, tensors_.random("w", DType::bf16, 5, in));
    const AnyView c = tensors_.poisoned(DType::fp32, 4, 5);
    tiles::multiply(exec_, kEmulated, shape,
                    {a.slice(0, 3), &weight, {}, c.slice(0, 3), workspace(shape, 3)});
    for (const double value : to_doubles(exec_, c.slice(0, 3))) EXPECT_FALSE(std::isnan(value));
    for (const double value : to_doubles(exec_, c.slice(3, 1))) EXPECT_TRUE(std::isnan(value));
  }
}

TEST_F(TileProducts, WeightsArePackedInStripsAsAtOnce) {
  const WeightPacking packing{
      &tiles::weight_form,
      [](const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows, std::int64_t first,
         const AnyView& to) { tiles::pack_weight(exec, kEmulated, shape, rows, first, to); }};
  expect_same_in_strips(exec_, packing, DType::bf16);
}

TEST_F(TileProducts, SomeRowsOfAWeightAreAWeight) {
  constexpr int kOut = 300, kIn = 45, kFirst = 256, kRows = 19;
  const AnyIn w = tensors_.random("w", DType::bf16, kOut, kIn);
  for (const GemmKind kind : {GemmKind::forward, GemmKind::data_gradient}) {
    const GemmShape whole{kind, kOut, kIn, DType::bf16, DType::fp32, false};
    GemmShape part = whole;
    part.out = kOut - kFirst;
    const PreparedWeight rows = prepared(kEmulated, whole, w).rows(kFirst, part.out);
    const AnyIn a = left(part, kRows);
    const std::int64_t width = kind == GemmKind::forward ? part.out : kIn;
    const AnyView c = tensors_.poisoned(DType::fp32, kRows, width),
                  expected = tensors_.poisoned(DType::fp32, kRows, width);

    tiles::multiply(exec_, kEmulated, part, {a, &rows, {}, c, workspace(part, kRows)});

    const PreparedWeight stored{w.slice(kFirst, part.out)};
    built_backends().gemm.back().run(exec_, part, {a, &stored, {}, expected, {}});
    EXPECT_TRUE(close(exec_, c, expected, tolerance(DType::fp32))) << name_of(kind);
  }
}

TEST(AmxOrders, BringEachElementToItsPlace) {
  constexpr int kStride = 40;
  std::vector<std::uint16_t> from(tiles::kBlock * kStride);
  std::iota(from.begin(), from.end(), std::uint16_t{0});
  const auto at = [&](int i, int j) { return from[i * kStride + j]; };
  std::uint16_t rows[tiles::kBlockSize], columns[tiles::kBlockSize], left[tiles::kBlockSize];

  kEmulated.right_of_rows(from.data(), kStride, rows);
  kEmulated.right_of_columns(from.data(), kStride, columns);
  kEmulated.left_of_columns(from.data(), kStride, left);

  for (int k = 0; k < tiles::kBlock; ++k) {
    for (int n = 0; n < tiles::kBlock; ++n) {
      const int place = n / 16 * 512 + k / 2 * 32 + n % 16 * 2 + k % 2;
      EXPECT_EQ(rows[place], at(k, n));
      EXPECT_EQ(columns[place], at(n, k));
      EXPECT_EQ(left[n * tiles::kBlock + k], at(k, n));
    }
  }
}

TEST(EmulatedTiles, KeepTheLimitsOfTheirConfiguration) {
  tiles::TileConfig config = tiles::kLargestTiles;
  config.rows[1] = 5;
  config.row_bytes[1] = 24;
  EmulatedTiles tiles(config);
  const std::vector<float> ones(16 * 16, 1);
  std::vector<float> read(16 * 16, 7);
  tiles.load<1>(ones.data(), 64);
  tiles.store<1>(read.data(), 64);
  EXPECT_EQ(std::accumulate(read.begin(), read.end(), 0.0F), 7 * 256 - 5 * 6 * 6);
  EXPECT_ANY_THROW((tiles.multiply_add<0, 4, 1>()));
  config.rows[2] = 17;
  EXPECT_ANY_THROW(EmulatedTiles{config});
  EXPECT_ANY_THROW(EmulatedTiles{tiles::TileConfig()});
}

TEST(AmxOffer, SaysWhatItCannotDo) {
  const GemmOffer offer = tiles::gemm_offer();
  for (const GemmShape& shape : all_shapes(8, 8)) {
    const bool types = shape.type == DType::bf16 && shape.result != DType::fp64;
    const std::string expected = types ? tiles::why_no_kernels() : offer.refuses(shape);
    EXPECT_EQ(offer.refuses(shape), expected);
    EXPECT_TRUE(types || !expected.empty()) << describe(shape);
  }
}

}  // namespace
}  // namespace konclave
