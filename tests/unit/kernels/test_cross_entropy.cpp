#include "ops/cross_entropy.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace konclave {
namespace {

constexpr std::pair<int, int> kExtents[] = {{0, 5},  {1, 1},  {3, 2},  {7, 31},
                                            {5, 32}, {6, 33}, {4, 65}, {3, 1031}};

struct Results {
  std::vector<double> loss;
  Matrix dz;
};

Results plain(const Matrix& z, const std::vector<int>& labels, double scale) {
  Results out{{}, z};
  for (std::int64_t t = 0; t < z.rows; ++t) {
    const int label = labels[static_cast<std::size_t>(t)];
    double largest = z(t, 0), sum = 0;
    for (std::int64_t v = 0; v < z.columns; ++v) largest = std::max(largest, z(t, v));
    for (std::int64_t v = 0; v < z.columns; ++v) sum += std::exp(z(t, v) - largest);
    out.loss.push_back(label < 0 ? 0 : std::log(sum) + largest - z(t, label));
    for (std::int64_t v = 0; v < z.columns; ++v) {
      const double share = std::exp(z(t, v) - largest) / sum - (v == label ? 1 : 0);
      out.dz(t, v) = label < 0 ? 0 : scale * share;
    }
  }
  return out;
}

/// The first, the last, unscored ones and others.
std::vector<int> make_labels(int rows, int vocabulary) {
  std::vector<int> labels;
  for (int t = 0; t < rows; ++t) {
    const int choices[] = {0, vocabulary - 1, -1, vocabulary / 2, -100};
    labels.push_back(choices[t % 5]);
  }
  return labels;
}

/// The functions as blocks of the vocabulary and ranks use them.
class CrossEntropy : public KernelTest {
 protected:
  /// A part's logits, columns first .. first + z.extent(1) - 1 of the whole.
  struct Part {
    std::int64_t first;
    AnyView z, terms;
  };

  std::vector<Part> cut(const AnyView& z, int count) {
    const Matrix whole = read(z);
    std::vector<Part> parts;
    for (int p = 0; p < count; ++p) {
      const std::int64_t first = p * whole.columns / count, end = (p + 1) * whole.columns / count;
      std::vector<double> values;
      for (std::int64_t t = 0; t < whole.rows; ++t) {
        for (std::int64_t v = first; v < end; ++v) values.push_back(whole(t, v));
      }
      parts.push_back({first, tensors_.values(z.type(), values, whole.rows, end - first), {}});
    }
    return parts;
  }
  /// Statistics of all parts and of the whole.
  struct Statistics {
    AnyView parts, whole;
    AnyView part(std::size_t p) const {
      const std::int64_t rows = whole.extent(0);
      return parts.slice(static_cast<std::int64_t>(p) * rows, rows);
    }
  };
  Statistics make_statistics(const std::vector<Part>& parts) {
    const std::int64_t rows = parts[0].z.extent(0);
    const auto count = static_cast<std::int64_t>(parts.size());
    const DType type = parts[0].z.type();
    return {tensors_.poisoned(type, rows * count, 3), tensors_.poisoned(type, rows, 3)};
  }
  /// The loss alone; it is overwritten.
  Statistics merge(const std::vector<Part>& parts, const View1<const int>& labels,
                   const View1<double>& loss) {
    const Statistics statistics = make_statistics(parts);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      ops::cross_entropy_statistics(exec_, parts[p].z, labels, parts[p].first, statistics.part(p));
    }
    ops::merge_cross_entropy(exec_, statistics.parts, labels, statistics.whole, loss);
    return statistics;
  }
  /// Loss and, in place of the terms, gradient; in place of z as well where types allow.
  void differentiate(std::vector<Part>& parts, DType type, bool in_place,
                     const View1<const int>& labels, double scale, const View1<double>& loss) {
    const Statistics statistics = make_statistics(parts);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      Part& part = parts[p];
      part.terms = in_place ? part.z : tensors_.poisoned(type, part.z.extent(0), part.z.extent(1));
      ops::cross_entropy_terms(exec_, part.z, labels, part.first, statistics.part(p), part.terms);
    }
    ops::merge_cross_entropy(exec_, statistics.parts, labels, statistics.whole, loss);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      ops::cross_entropy_gradient(exec_, parts[p].terms, statistics.part(p), statistics.whole,
                                  labels, parts[p].first, scale, parts[p].terms);
    }
  }
  /// dz of all parts side by side.
  std::vector<double> joined(const std::vector<Part>& parts, const Results& like) const {
    Matrix all = like.dz;
    for (const Part& part : parts) {
      const Matrix dz = read(part.terms);
      for (std::int64_t t = 0; t < dz.rows; ++t) {
        for (std::int64_t v = 0; v < dz.columns; ++v) all(t, part.first + v) = dz(t, v);
      }
    }
    return all.values;
  }
  /// Loss and gradient, for every type that dz may have, against plain loops.
  void expect_parts(const AnyView& z, const std::vector<int>& label, double scale, int count) {
    const Results expected = plain(read(z), label, scale);
    const View1<const int> labels = tensors_.integers(label);
    const View1<double> alone = doubles(z.extent(0));
    merge(cut(z, count), labels, alone);
    EXPECT_TRUE(close(to_host(exec_, alone), expected.loss, tolerance(z.type()), 1)) << "loss";
    for (const DType type : kTypes) {
      if (accum_type(type) != z.type()) continue;
      for (const bool in_place : {false, true}) {
        if (in_place && type != z.type()) continue;
        SCOPED_TRACE(testing::Message() << "dz in " << name_of(type) << ", in place " << in_place);
        std::vector<Part> parts = cut(z, count);
        const View1<double> loss = doubles(z.extent(0));
        differentiate(parts, type, in_place, labels, scale, loss);
        EXPECT_EQ(to_host(exec_, loss), to_host(exec_, alone)) << "loss beside the gradient";
        EXPECT_TRUE(close(joined(parts, expected), expected.dz.values, tolerance(type),
                          /*typical=*/scale));
      }
    }
  }
};

TEST_F(CrossEntropy, AgreesWithPlainLoop) {
  for (const DType type : kAccumTypes) {
    for (const auto& [rows, vocabulary] : kExtents) {
      for (int count = 1; count <= std::min(4, vocabulary); ++count) {
        SCOPED_TRACE(testing::Message() << name_of(type) << " (" << rows << ", " << vocabulary
                                        << ") in " << count << " parts");
        tensors_ = Tensors(exec_);
        expect_parts(tensors_.random("z", type, rows, vocabulary), make_labels(rows, vocabulary),
                     0.37, count);
      }
    }
  }
}

TEST_F(CrossEntropy, LargeLogitsStayExact) {
  for (const DType type : kAccumTypes) {
    const AnyView z = tensors_.values(
        type, {1e4, -1e4, 0, 1e4, -1e4, -1e4, -1e4, -1e4, 1e4, 1e4, 1e4, 1e4, -1e4, 0, 1, 2}, 4, 4);
    for (const int count : {1, 2, 3, 4}) expect_parts(z, {1, 3, 0, 0}, 1, count);
    const View1<double> loss = doubles(4);
    merge(cut(z, 1), tensors_.integers({1, 3, 0, 0}), loss);
    const std::vector<double> expected{2e4 + std::log(2.0), std::log(4.0), std::log(4.0),
                                       1e4 + 2 + std::log(1 + std::exp(-1.0) + std::exp(-2.0))};
    EXPECT_TRUE(close(to_host(exec_, loss), expected, tolerance(type)));
  }
}

TEST_F(CrossEntropy, RoundedTermsKeepTheGradientAsExactAsItsType) {
  // Logits of this size would be off by a tenth of the probabilities if they were rounded.
  constexpr int kVocabulary = 64;
  std::vector<double> values;
  for (int v = 0; v < kVocabulary; ++v) values.push_back(60 + 0.11 * (v * 37 % kVocabulary));
  const AnyView z = tensors_.values(DType::fp32, values, 1, kVocabulary);
  const Results expected = plain(read(z), {5}, 1);
  std::vector<Part> parts = cut(z, 2);
  differentiate(parts, DType::bf16, /*in_place=*/false, tensors_.integers({5}), 1, doubles(1));
  const std::vector<double> actual = joined(parts, expected);
  for (std::size_t v = 0; v < actual.size(); ++v) {
    EXPECT_NEAR(actual[v], expected.dz.values[v], 0.008 * std::abs(expected.dz.values[v])) << v;
  }
}

TEST_F(CrossEntropy, ANaNReachesTheLossOfItsRowAlone) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const DType type : kAccumTypes) {
    for (const int count : {1, 2, 5}) {
      for (int place = 0; place < 5; ++place) {
        std::vector<double> values(10, 0.5);
        values[static_cast<std::size_t>(place)] = kNaN;
        const View1<double> loss = doubles(2);
        merge(cut(tensors_.values(type, values, 2, 5), count), tensors_.integers({1, 1}), loss);
        EXPECT_TRUE(std::isnan(to_host(exec_, loss)[0])) << place << " in " << count;
        EXPECT_NEAR(to_host(exec_, loss)[1], std::log(5.0), 1e-6);
      }
    }
  }
}

TEST_F(CrossEntropy, GradientIsThatOfTheLoss) {
  constexpr double kScale = 0.3;
  const AnyView z = tensors_.random("z", DType::fp64, 4, 5);
  const View1<const int> labels = tensors_.integers({2, -1, 0, 4});
  const View1<double> loss = doubles(4);
  std::vector<Part> whole{{0, z, {}}};
  differentiate(whole, DType::fp64, /*in_place=*/false, labels, kScale, loss);
  const auto objective = [&] {
    merge({{0, z, {}}}, labels, loss);
    return kScale * dot(to_host(exec_, loss), {1, 1, 1, 1});
  };
  expect_gradient(whole[0].terms, z, objective, "dz");
}

}  // namespace
}  // namespace konclave
