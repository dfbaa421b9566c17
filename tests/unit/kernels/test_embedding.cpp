#include "ops/embedding.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

namespace konclave {
namespace {

constexpr int kVocabulary = 7;

/// Tokens that repeat, some of another rank (below 0); 4 and 5 never come.
std::vector<int> tokens(int count) {
  constexpr int kUsed[] = {6, 0, 0, 3, -1, 1, 2, 3, 0};
  std::vector<int> result;
  for (int t = 0; t < count; ++t) result.push_back(kUsed[t * t % 9]);
  return result;
}

class Embedding : public KernelTest {
 protected:
  /// Rows sorted by token, as ops::embedding_gradient wants them, without those of other ranks.
  void run_backward(const std::vector<int>& token, const AnyIn& dy, const AnyView& dw) {
    std::vector<int> order, offsets{0}, ids;
    for (int id = 0; id < kVocabulary; ++id) {
      for (int t = 0; t < static_cast<int>(token.size()); ++t) {
        if (token[static_cast<std::size_t>(t)] == id) order.push_back(t);
      }
      if (static_cast<int>(order.size()) == offsets.back()) continue;
      offsets.push_back(static_cast<int>(order.size()));
      ids.push_back(id);
    }
    ops::embedding_gradient(exec_, dy, tensors_.integers(order), tensors_.integers(offsets),
                            tensors_.integers(ids), dw);
  }
};

TEST_F(Embedding, GatherRowsCopiesRows) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView x = tensors_.random("x", type, kVocabulary, columns);
    const AnyView y = tensors_.poisoned(type, rows, columns);
    const std::vector<int> source = tokens(rows);
    const Matrix table = read(x);
    Matrix expected = zeros(rows, columns);
    for (int t = 0; t < rows; ++t) {
      const int row = source[static_cast<std::size_t>(t)];
      for (int h = 0; h < columns; ++h) expected(t, h) = row < 0 ? 0 : table(row, h);
    }
    ops::gather_rows(exec_, x, tensors_.integers(source), y);
    expect_close(y, expected.values, kExact, "y");
  });
}

TEST_F(Embedding, OnlyTokensOfOtherRanks) {
  const AnyView x = tensors_.random("x", DType::bf16, kVocabulary, 5);
  const AnyView y = tensors_.poisoned(DType::bf16, 3, 5);
  const AnyView dw = tensors_.random("dw", DType::fp32, kVocabulary, 5);
  const std::vector<double> before = read(dw).values;
  const std::vector<int> foreign{-1, -1, -1};
  ops::gather_rows(exec_, x, tensors_.integers(foreign), y);
  expect_close(y, zeros(3, 5).values, kExact, "y");
  run_backward(foreign, tensors_.random("dy", DType::bf16, 3, 5), dw);
  expect_close(dw, before, kExact, "dw");
}

TEST_F(Embedding, GradientAddsRowsOfRepeatedTokens) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView dy = tensors_.random("dy", type, rows, columns);
    const AnyView dw = tensors_.random("dw", accum_type(type), kVocabulary, columns);
    const std::vector<int> token = tokens(rows);
    const Matrix upstream = read(dy);
    Matrix expected = read(dw);
    for (int t = 0; t < rows; ++t) {
      const int row = token[static_cast<std::size_t>(t)];
      for (int h = 0; row >= 0 && h < columns; ++h) expected(row, h) += upstream(t, h);
    }
    run_backward(token, dy, dw);
    expect_close(dw, expected.values, tolerance(accum_type(type)), "dw", /*typical=*/1);
  });
}

TEST_F(Embedding, GradientIsThatOfGather) {
  const AnyView w = tensors_.random("w", DType::fp64, kVocabulary, 3);
  const AnyView dw = tensors_.values(DType::fp64, zeros(kVocabulary, 3).values, kVocabulary, 3);
  const AnyView y = tensors_.poisoned(DType::fp64, 13, 3);
  const AnyView dy = tensors_.random("dy", DType::fp64, 13, 3);
  const std::vector<int> token = tokens(13);
  run_backward(token, dy, dw);
  const auto objective = [&] {
    ops::gather_rows(exec_, w, tensors_.integers(token), y);
    return dot(read(y).values, read(dy).values);
  };
  expect_gradient(dw, w, objective, "dw");
}

}  // namespace
}  // namespace konclave
