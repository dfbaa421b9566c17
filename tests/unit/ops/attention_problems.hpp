#pragma once

#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/ops/offers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// One micro-batch on the host; see AttentionRows.
struct Rows {
  std::vector<int> q_offsets{0}, k_offsets{0}, q_positions, k_positions;

  /// Appends a sequence.
  Rows& add(const std::vector<int>& queries, const std::vector<int>& keys) {
    q_positions.insert(q_positions.end(), queries.begin(), queries.end());
    k_positions.insert(k_positions.end(), keys.begin(), keys.end());
    q_offsets.push_back(static_cast<int>(q_positions.size()));
    k_offsets.push_back(static_cast<int>(k_positions.size()));
    return *this;
  }
  std::int64_t longest() const {
    std::int64_t keys = 0;
    for (std::size_t i = 1; i < k_offsets.size(); ++i) {
      keys = std::max<std::int64_t>(keys, k_offsets[i] - k_offsets[i - 1]);
    }
    return keys;
  }
};

/// begin, begin + 1, ..., end - 1.
inline std::vector<int> range(int begin, int end) {
  std::vector<int> values(static_cast<std::size_t>(end - begin));
  std::iota(values.begin(), values.end(), begin);
  return values;
}

inline std::vector<int> join(std::vector<int> first, const std::vector<int>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

struct Case {
  std::string name;
  Rows rows;
};

inline std::vector<Case> cases() {
  const auto whole = [](int size) { return std::pair(range(0, size), range(0, size)); };
  const auto square = [&](Rows rows, int size) {
    return rows.add(whole(size).first, whole(size).second);
  };
  return {
      {"nothing", Rows()},
      {"an empty sequence", square(square(Rows(), 0), 3)},
      {"one row", square(Rows(), 1)},
      {"a block and one row", square(Rows(), 65)},
      {"unequal lengths", square(square(square(Rows(), 7), 131), 2)},
      {"positions from 100 on", Rows().add(range(100, 117), range(100, 117))},
      {"the tail of the keys", Rows().add(range(90, 109), range(0, 109)).add({4}, range(0, 5))},
      {"first and last quarter", Rows().add(join(range(0, 20), range(60, 80)), range(0, 80))},
      {"every second position", Rows().add({1, 3, 5, 7, 9}, {0, 2, 4, 6, 8, 10})},
      {"queries before all keys", Rows().add(range(0, 6), range(3, 9)).add({0}, {1, 2})},
  };
}

inline std::vector<AttentionShape> shapes(DType type) {
  return {{1, 1, 1, 1, 1.0, type},
          {2, 2, 8, 8, 0.35, type},
          {4, 2, 16, 8, 0.25, type},
          {6, 2, 5, 13, 0.5, type},
          {3, 1, 64, 64, 0.125, type}};
}

class AttentionProblems : public testing::Test {
 protected:
  /// Inputs and outputs of one problem; all extents but those of lse follow from the shape.
  struct Problem {
    AttentionRows rows;
    AnyView q, k, v, o, lse, d_o, dq, dk, dv;
  };

  Problem problem(const AttentionShape& shape, const Rows& rows) {
    const auto queries = rows.q_positions.size(), keys = rows.k_positions.size();
    const int q_width = shape.heads * shape.dk, k_width = shape.kv_heads * shape.dk;
    const int o_width = shape.heads * shape.dv, v_width = shape.kv_heads * shape.dv;
    const DType type = shape.type;
    return {{tensors_.integers(rows.q_offsets), tensors_.integers(rows.k_offsets),
             tensors_.integers(rows.q_positions), tensors_.integers(rows.k_positions)},
            tensors_.random("q", type, queries, q_width),
            tensors_.random("k", type, keys, k_width),
            tensors_.random("v", type, keys, v_width),
            tensors_.poisoned(type, queries, o_width),
            tensors_.poisoned(accum_type(type), queries, shape.heads),
            tensors_.random("d_o", type, queries, o_width),
            tensors_.poisoned(type, queries, q_width),
            tensors_.poisoned(type, keys, k_width),
            tensors_.poisoned(type, keys, v_width)};
  }

  void forward(const AttentionOffer& offer, const AttentionShape& shape, const Problem& p,
               std::int64_t longest) {
    offer.forward(exec_, shape,
                  {p.rows, p.q, p.k, p.v, p.o, p.lse,
                   tensors_.workspace(offer.workspace(shape, longest), shape.type)});
  }
  void backward(const AttentionOffer& offer, const AttentionShape& shape, const Problem& p,
                std::int64_t longest) {
    offer.backward(exec_, shape,
                   {p.rows, p.q, p.k, p.v, p.o, p.lse, p.d_o, p.dq, p.dk, p.dv,
                    tensors_.workspace(offer.workspace(shape, longest), shape.type)});
  }

  /// An offer against the reference, whose o and lse both backward passes get.
  void compare(const AttentionOffer& offer, const AttentionShape& shape, const Rows& rows,
               const Problem& expected) {
    const Tolerance allowed = tolerance(shape.type);
    Problem actual = problem(shape, rows);
    forward(offer, shape, actual, rows.longest());
    EXPECT_TRUE(close(exec_, actual.o, expected.o, allowed)) << "o";
    EXPECT_TRUE(close(exec_, actual.lse, expected.lse, tolerance(accum_type(shape.type)))) << "lse";
    // With few keys the terms of a gradient cancel, with one of them to zero.
    constexpr double kTypical = 1;
    actual.o = expected.o;
    actual.lse = expected.lse;
    backward(offer, shape, actual, rows.longest());
    EXPECT_TRUE(close(exec_, actual.dq, expected.dq, allowed, kTypical)) << "dq";
    EXPECT_TRUE(close(exec_, actual.dk, expected.dk, allowed, kTypical)) << "dk";
    EXPECT_TRUE(close(exec_, actual.dv, expected.dv, allowed, kTypical)) << "dv";
  }

  /// The same for shapes and rows of all kinds.
  void compare_all(const std::vector<AttentionOffer>& offers, DType type) {
    for (const AttentionShape& shape : shapes(type)) {
      for (const Case& each : cases()) {
        tensors_ = Tensors(exec_);
        const Problem expected = problem(shape, each.rows);
        forward(reference_, shape, expected, each.rows.longest());
        backward(reference_, shape, expected, each.rows.longest());
        for (const AttentionOffer& offer : accepting(offers, shape)) {
          SCOPED_TRACE(std::string(offer.backend) + ": " + describe(shape) + ", " + each.name);
          compare(offer, shape, each.rows, expected);
        }
      }
    }
  }

  ExecSpace exec_;
  Tensors tensors_{exec_};
  std::vector<AttentionOffer> offers_ = built_backends().attention;
  AttentionOffer reference_ = offers_.back();
};

}  // namespace konclave
