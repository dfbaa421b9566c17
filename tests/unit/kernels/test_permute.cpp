#include "ops/permute.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace konclave {
namespace {

/// Chosen experts of each token, in the form of a plan.
struct Choices {
  std::string name;
  int num_experts;
  std::vector<int> experts, token_offsets;

  int tokens() const { return static_cast<int>(token_offsets.size()) - 1; }
  int assignments() const { return static_cast<int>(experts.size()); }
};

/// `per_token` experts of each token at random, ascending; below 0: any number of them.
Choices random_choices(int tokens, int num_experts, int per_token) {
  const RandomStream stream(/*seed=*/3, "choices");
  Choices result{std::to_string(tokens) + " tokens, " + std::to_string(per_token) + " of " +
                     std::to_string(num_experts) + " experts",
                 num_experts,
                 {},
                 {0}};
  for (int t = 0; t < tokens; ++t) {
    std::vector<int> order(static_cast<std::size_t>(num_experts));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) {
      const auto draw = [&](int e) {
        return stream.bits(static_cast<std::uint64_t>(t * num_experts + e));
      };
      return draw(a) < draw(b);
    });
    const int count = per_token >= 0 ? per_token : (5 * t + 2) % (num_experts + 1);
    std::sort(order.begin(), order.begin() + count);
    result.experts.insert(result.experts.end(), order.begin(), order.begin() + count);
    result.token_offsets.push_back(result.assignments());
  }
  return result;
}

Choices all_to_one(int tokens, int num_experts, int expert) {
  Choices result = random_choices(tokens, num_experts, 1);
  result.name = std::to_string(tokens) + " tokens to expert " + std::to_string(expert);
  std::fill(result.experts.begin(), result.experts.end(), expert);
  return result;
}

/// Tokens are worked on in chunks of 256.
std::vector<Choices> cases() {
  return {random_choices(0, 3, 2),    random_choices(1, 1, 1),    random_choices(13, 7, 7),
          random_choices(256, 4, 1),  random_choices(257, 64, 6), random_choices(1031, 5, 2),
          random_choices(300, 4, -1), random_choices(700, 1, -1), random_choices(5, 3, 0),
          all_to_one(300, 8, 0),      all_to_one(513, 8, 7),      all_to_one(2, 3, 1)};
}

/// Each assignment as (expert, token, number), sorted by expert alone: the order is stable.
struct Plain {
  std::vector<int> expert_offsets, row_of, token_of, assignment_of;
};
Plain plain(const Choices& choices) {
  std::vector<int> token;
  for (int t = 0; t < choices.tokens(); ++t) {
    const auto place = static_cast<std::size_t>(t);
    token.resize(static_cast<std::size_t>(choices.token_offsets[place + 1]), t);
  }
  Plain out;
  out.assignment_of.resize(choices.experts.size());
  std::iota(out.assignment_of.begin(), out.assignment_of.end(), 0);
  const auto expert = [&](int a) { return choices.experts[static_cast<std::size_t>(a)]; };
  std::stable_sort(out.assignment_of.begin(), out.assignment_of.end(),
                   [&](int a, int b) { return expert(a) < expert(b); });
  out.row_of.resize(choices.experts.size());
  for (std::size_t row = 0; row < out.assignment_of.size(); ++row) {
    const auto assignment = static_cast<std::size_t>(out.assignment_of[row]);
    out.row_of[assignment] = static_cast<int>(row);
    out.token_of.push_back(token[assignment]);
  }
  for (int e = 0; e <= choices.num_experts; ++e) {
    out.expert_offsets.push_back(static_cast<int>(std::count_if(
        choices.experts.begin(), choices.experts.end(), [&](int c) { return c < e; })));
  }
  return out;
}

class Permute : public KernelTest {};

TEST_F(Permute, PermutationIsAStableSort) {
  for (const Choices& choices : cases()) {
    SCOPED_TRACE(choices.name);
    const ops::Permutation out{integers(choices.num_experts + 1), integers(choices.assignments()),
                               integers(choices.assignments())};
    const ops::Permutation no_inverse{
        integers(choices.num_experts + 1), integers(choices.assignments()), {}};
    for (const ops::Permutation& each : {out, no_inverse}) {
      ops::permutation(
          exec_, tensors_.integers(choices.experts), tensors_.integers(choices.token_offsets),
          integers(ops::permutation_scratch(choices.tokens(), choices.num_experts)), each);
    }
    const Plain expected = plain(choices);
    EXPECT_EQ(to_host(exec_, no_inverse.row_of), expected.row_of);
    EXPECT_EQ(to_host(exec_, out.expert_offsets), expected.expert_offsets);
    EXPECT_EQ(to_host(exec_, out.row_of), expected.row_of);
    EXPECT_EQ(to_host(exec_, out.assignment_of), expected.assignment_of);
  }
}

/// Rows first .. first + count - 1, with the value of each where there are some.
TEST_F(Permute, PermuteRowsBringsEachTokenToItsPlaces) {
  for (const DType type : kTypes) {
    for (const Choices& choices : cases()) {
      const int columns = choices.tokens() > 300 ? 3 : 33;
      SCOPED_TRACE(std::string(name_of(type)) + ", " + choices.name);
      tensors_ = Tensors(exec_);
      const AnyView x = tensors_.random("x", type, choices.tokens(), columns);
      const AnyView weights =
          tensors_.random("weights", accum_type(type), std::max(1, choices.assignments()));
      const Plain order = plain(choices);
      const View1<const int> offsets = tensors_.integers(choices.token_offsets);
      const View1<const int> row_of = tensors_.integers(order.row_of);
      const Matrix rows = read(x), values = read(weights);
      const int all = choices.assignments();
      for (const auto& [first, count] : {std::pair(0, all), {all / 3, all / 2}, {all, 0}}) {
        std::vector<double> expected, expected_values;
        for (int row = first; row < first + count; ++row) {
          const auto place = static_cast<std::size_t>(row);
          for (int h = 0; h < columns; ++h) expected.push_back(rows(order.token_of[place], h));
          expected_values.push_back(values(order.assignment_of[place], 0));
        }
        const AnyView y = tensors_.poisoned(type, count, columns);
        ops::permute_rows(exec_, x, offsets, row_of, first, y);
        expect_close(y, expected, kExact, "alone");
        const AnyView again = tensors_.poisoned(type, count, columns);
        const AnyView to = tensors_.poisoned(accum_type(type), count);
        ops::permute_rows(exec_, x, offsets, row_of, first, again, {weights.slice(0, all), to});
        expect_close(again, expected, kExact, "with values");
        expect_close(to, expected_values, kExact, "values");
      }
    }
  }
}

TEST_F(Permute, CombineRowsAddsTheRowsOfEachToken) {
  for (const DType type : kTypes) {
    for (const Choices& choices : cases()) {
      const int columns = choices.tokens() > 300 ? 3 : 33;
      SCOPED_TRACE(std::string(name_of(type)) + ", " + choices.name);
      tensors_ = Tensors(exec_);
      const AnyView x = tensors_.random("x", type, choices.assignments(), columns);
      const AnyView y = tensors_.poisoned(type, choices.tokens(), columns);
      const std::vector<int> row_of = plain(choices).row_of;
      const Matrix rows = read(x);
      Matrix expected = zeros(choices.tokens(), columns);
      for (int t = 0; t < choices.tokens(); ++t) {
        const auto place = static_cast<std::size_t>(t);
        for (int a = choices.token_offsets[place]; a < choices.token_offsets[place + 1]; ++a) {
          for (int h = 0; h < columns; ++h) {
            expected(t, h) += rows(row_of[static_cast<std::size_t>(a)], h);
          }
        }
      }
      const View1<const int> offsets = tensors_.integers(choices.token_offsets);
      const View1<const int> places = tensors_.integers(row_of);
      ops::combine_rows(exec_, x, offsets, places, {}, y);
      expect_close(y, expected.values, tolerance(type), "y");

      const AnyView residual = tensors_.random("residual", type, choices.tokens(), columns);
      const Matrix passed = read(residual);
      for (std::size_t i = 0; i < passed.values.size(); ++i) {
        expected.values[i] += passed.values[i];
      }
      ops::combine_rows(exec_, x, offsets, places, residual, y);
      expect_close(y, expected.values, tolerance(type), "with a residual", /*typical=*/1);
      ops::combine_rows(exec_, x, offsets, places, residual, residual);
      expect_close(residual, read(y).values, kExact, "y is the residual");

      const AnyView of_rows = tensors_.random("values", accum_type(type), choices.assignments());
      const AnyView of_assignments = tensors_.poisoned(accum_type(type), choices.assignments());
      const AnyView again = tensors_.poisoned(type, choices.tokens(), columns);
      ops::combine_rows(exec_, x, offsets, places, residual, again, {of_rows, of_assignments});
      std::vector<double> values;
      for (const int row : row_of) values.push_back(read(of_rows)(row, 0));
      expect_close(of_assignments, values, kExact, "values");
    }
  }
}

/// Experts change places, last first, and the rows of two of them lie in other memory. What comes
/// back from there is what came.
TEST_F(Permute, ShiftsMoveTheRowsOfAnExpertTogether) {
  for (const DType type : kTypes) {
    const Choices choices = random_choices(77, 5, 3);
    constexpr int kColumns = 33;
    tensors_ = Tensors(exec_);
    const Plain order = plain(choices);
    std::vector<int> shift, offsets = order.expert_offsets;
    const int all = choices.assignments();
    for (std::size_t e = 0; e < 5; ++e) {
      shift.push_back(all - offsets[e + 1] - offsets[e]);  // it ends where others began
    }
    const int apart = all - offsets[3];  // experts 4 and 3
    const ops::RowPlaces places(tensors_.integers(order.row_of), tensors_.integers(choices.experts),
                                tensors_.integers(shift));
    const View1<const int> tokens = tensors_.integers(choices.token_offsets);
    const AnyView x = tensors_.random("x", type, choices.tokens(), kColumns);
    const AnyView weights = tensors_.random("weights", accum_type(type), all);
    const AnyView near = tensors_.poisoned(type, all - apart, kColumns);
    const AnyView far = tensors_.poisoned(type, apart, kColumns);
    const AnyView near_values = tensors_.poisoned(accum_type(type), all - apart);
    const AnyView far_values = tensors_.poisoned(accum_type(type), apart);

    ops::permute_rows(exec_, x, tokens, places, apart, near, {weights, near_values},
                      {0, far, far_values});

    std::vector<double> expected, expected_values;
    for (int e = 4; e >= 0; --e) {
      const auto place = static_cast<std::size_t>(e);
      for (int row = offsets[place]; row < offsets[place + 1]; ++row) {
        const auto from = static_cast<std::size_t>(row);
        for (int h = 0; h < kColumns; ++h) expected.push_back(read(x)(order.token_of[from], h));
        expected_values.push_back(read(weights)(order.assignment_of[from], 0));
      }
    }
    const auto split = [&](const std::vector<double>& values, int width) {
      const auto middle = values.begin() + apart * width;
      return std::pair(std::vector<double>(values.begin(), middle),
                       std::vector<double>(middle, values.end()));
    };
    const auto [far_rows, near_rows] = split(expected, kColumns);
    const auto [of_far, of_near] = split(expected_values, 1);
    expect_close(far, far_rows, kExact, "far");
    expect_close(near, near_rows, kExact, "near");
    expect_close(far_values, of_far, kExact, "values of far");
    expect_close(near_values, of_near, kExact, "values of near");

    const AnyView rows = tensors_.values(type, expected, all, kColumns);
    const AnyView values = tensors_.poisoned(accum_type(type), all);
    from_doubles(exec_, expected_values, values);
    const AnyView y = tensors_.poisoned(type, choices.tokens(), kColumns);
    const AnyView back = tensors_.poisoned(accum_type(type), all);
    ops::combine_rows(exec_, rows, tokens, places, {}, y, {values, back});
    Matrix sum = zeros(choices.tokens(), kColumns);
    for (int t = 0; t < choices.tokens(); ++t) {
      for (int h = 0; h < kColumns; ++h) sum(t, h) = 3 * read(x)(t, h);
    }
    expect_close(y, sum.values, tolerance(type), "y");
    expect_close(back, read(weights).values, kExact, "values back");
  }
}

TEST_F(Permute, CombineRowsSumsInFp32) {
  // 256 and 257 times 1: a sum that was rounded to bf16 on the way would stay at 256.
  constexpr int kRows = 514;
  std::vector<int> row_of(kRows);
  std::iota(row_of.begin(), row_of.end(), 0);
  const AnyView x = tensors_.values(DType::bf16, std::vector<double>(kRows, 1), kRows, 1);
  const AnyView y = tensors_.poisoned(DType::bf16, 1, 1);
  ops::combine_rows(exec_, x, tensors_.integers({0, kRows}), tensors_.integers(row_of), {}, y);
  expect_close(y, rounded(DType::bf16, {kRows}), kExact, "y");
}

TEST(PermuteBytes, CountEachRowOnceInAndOnceOut) {
  constexpr int kFp32 = 4, kBf16 = 2, kIndex = 4;
  const auto bytes = [](bool values, bool shifts) {
    return ops::permute_bytes(/*tokens=*/3, /*assignments=*/6, /*hidden=*/5, DType::bf16,
                              {values, shifts});
  };
  const std::int64_t rows = 6 * 5 * kBf16 + 3 * 5 * kBf16 + (3 + 1) * kIndex + 6 * kIndex;
  EXPECT_EQ(bytes(false, false), rows);
  EXPECT_EQ(bytes(/*values=*/true, false), rows + 2 * 6 * kFp32);
  EXPECT_EQ(bytes(false, /*shifts=*/true), rows + 6 * kIndex);
}

TEST(PermuteBytes, OfThePlanCountAssignmentsTwiceWhereNoCacheKeepsThem) {
  constexpr std::int64_t kIndex = 4, kTables = 100 + 1 + 4 + 1;
  EXPECT_EQ(ops::permutation_bytes(100, 200, 4), (2 * 200 + kTables) * kIndex);
  const std::int64_t many = std::int64_t{1} << 20;
  EXPECT_EQ(ops::permutation_bytes(100, many, 4), (3 * many + kTables) * kIndex);
}

TEST_F(Permute, GatherValues) {
  for (const DType type : kAccumTypes) {
    for (const int size : {0, 1, 33, 1031}) {
      const AnyView x = tensors_.random("x", type, 7), y = tensors_.poisoned(type, size);
      std::vector<int> source;
      std::vector<double> expected;
      for (int i = 0; i < size; ++i) {
        source.push_back((i * i + 3) % 7);
        expected.push_back(read(x)(source.back(), 0));
      }
      ops::gather_values(exec_, x, tensors_.integers(source), y);
      expect_close(y, expected, kExact, std::to_string(size));
    }
  }
}

}  // namespace
}  // namespace konclave
