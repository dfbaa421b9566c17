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

class CrossEntropy : public KernelTest {
 protected:
  /// Loss and gradient of both functions, for every type that dz may have, against plain loops.
  void expect_all(const AnyView& z, const std::vector<int>& label, double scale) {
    const Results expected = plain(read(z), label, scale);
    const View1<const int> labels = tensors_.integers(label);
    const auto expect_loss = [&](const View1<double>& loss, const std::string& what) {
      EXPECT_TRUE(close(to_host(exec_, loss), expected.loss, tolerance(z.type()), 1)) << what;
    };
    const View1<double> loss = doubles(z.extent(0));
    ops::cross_entropy(exec_, z, labels, loss);
    expect_loss(loss, "loss alone");
    for (const DType type : kTypes) {
      if (accum_type(type) != z.type()) continue;
      const bool in_place = type == z.type();
      const View1<double> again = doubles(z.extent(0));
      const AnyView dz = tensors_.poisoned(type, z.extent(0), z.extent(1));
      ops::cross_entropy_gradient(exec_, z, labels, scale, again, dz);
      expect_loss(again, "loss with gradient");
      expect_close(dz, expected.dz.values, tolerance(type), "dz", /*typical=*/scale);
      if (!in_place) continue;
      const AnyView on_z = tensors_.copy(z);
      const View1<double> third = doubles(z.extent(0));
      ops::cross_entropy_gradient(exec_, on_z, labels, scale, third, on_z);
      expect_loss(third, "loss when dz is z");
      expect_close(on_z, expected.dz.values, tolerance(type), "dz is z", scale);
    }
  }
};

TEST_F(CrossEntropy, AgreesWithPlainLoop) {
  for (const DType type : kAccumTypes) {
    for (const auto& [rows, vocabulary] : kExtents) {
      SCOPED_TRACE(testing::Message()
                   << name_of(type) << " (" << rows << ", " << vocabulary << ")");
      tensors_ = Tensors(exec_);
      expect_all(tensors_.random("z", type, rows, vocabulary), make_labels(rows, vocabulary), 0.37);
    }
  }
}

TEST_F(CrossEntropy, LargeLogitsStayExact) {
  for (const DType type : kAccumTypes) {
    const AnyView z = tensors_.values(
        type, {1e4, -1e4, 0, 1e4, -1e4, -1e4, -1e4, -1e4, 1e4, 1e4, 1e4, 1e4, -1e4, 0, 1, 2}, 4, 4);
    expect_all(z, {1, 3, 0, 0}, 1);
    const View1<double> loss = doubles(4);
    ops::cross_entropy(exec_, z, tensors_.integers({1, 3, 0, 0}), loss);
    const std::vector<double> expected{2e4 + std::log(2.0), std::log(4.0), std::log(4.0),
                                       1e4 + 2 + std::log(1 + std::exp(-1.0) + std::exp(-2.0))};
    EXPECT_TRUE(close(to_host(exec_, loss), expected, tolerance(type)));
  }
}

TEST_F(CrossEntropy, ANaNReachesTheLossOfItsRowAlone) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const DType type : kAccumTypes) {
    for (const int place : {0, 3, 34}) {
      std::vector<double> values(70, 0.5);
      values[static_cast<std::size_t>(place)] = kNaN;
      const View1<double> loss = doubles(2);
      const AnyView z = tensors_.values(type, values, 2, 35);
      ops::cross_entropy(exec_, z, tensors_.integers({1, 1}), loss);
      EXPECT_TRUE(std::isnan(to_host(exec_, loss)[0])) << place;
      EXPECT_NEAR(to_host(exec_, loss)[1], std::log(35.0), 1e-6);
    }
  }
}

/// The functions for parts of the vocabulary, as ranks use them, on one rank.
class CrossEntropyOfParts : public CrossEntropy {
 protected:
  /// A rank's logits, columns first .. first + part.extent(1) - 1 of the whole.
  struct Part {
    std::int64_t first;
    AnyView z, dz;
  };

  std::vector<Part> cut(const AnyView& z, int ranks) {
    const Matrix whole = read(z);
    std::vector<Part> parts;
    for (int r = 0; r < ranks; ++r) {
      const std::int64_t first = r * whole.columns / ranks, end = (r + 1) * whole.columns / ranks;
      std::vector<double> values;
      for (std::int64_t t = 0; t < whole.rows; ++t) {
        for (std::int64_t v = first; v < end; ++v) values.push_back(whole(t, v));
      }
      parts.push_back({first, tensors_.values(z.type(), values, whole.rows, end - first), {}});
    }
    return parts;
  }
  /// The statistics of the whole; the loss is overwritten.
  AnyView merge(const std::vector<Part>& parts, const View1<const int>& labels,
                const View1<double>& loss) {
    const DType type = parts[0].z.type();
    const auto rows = static_cast<std::int64_t>(labels.size());
    const AnyView all = tensors_.poisoned(type, rows * static_cast<std::int64_t>(parts.size()), 3);
    for (std::size_t r = 0; r < parts.size(); ++r) {
      ops::cross_entropy_statistics(exec_, parts[r].z, labels, parts[r].first,
                                    all.slice(static_cast<std::int64_t>(r) * rows, rows));
    }
    const AnyView whole = tensors_.poisoned(type, rows, 3);
    ops::merge_cross_entropy(exec_, all, labels, whole, loss);
    return whole;
  }
  /// dz of all parts side by side.
  std::vector<double> joined(const std::vector<Part>& parts, const Results& like) const {
    Matrix all = like.dz;
    for (const Part& part : parts) {
      const Matrix dz = read(part.dz);
      for (std::int64_t t = 0; t < dz.rows; ++t) {
        for (std::int64_t v = 0; v < dz.columns; ++v) all(t, part.first + v) = dz(t, v);
      }
    }
    return all.values;
  }
  void expect_parts(const AnyView& z, const std::vector<int>& label, double scale, int ranks) {
    const Results expected = plain(read(z), label, scale);
    const View1<const int> labels = tensors_.integers(label);
    const View1<double> loss = doubles(z.extent(0));
    std::vector<Part> parts = cut(z, ranks);
    const AnyView whole = merge(parts, labels, loss);
    EXPECT_TRUE(close(to_host(exec_, loss), expected.loss, tolerance(z.type()), 1)) << "loss";
    for (const DType type : kTypes) {
      if (accum_type(type) != z.type()) continue;
      for (const bool in_place : {false, true}) {
        if (in_place && type != z.type()) continue;
        for (Part& part : parts) {
          part.dz = in_place ? part.z : tensors_.poisoned(type, part.z.extent(0), part.z.extent(1));
          ops::cross_entropy_part_gradient(exec_, part.z, whole, labels, part.first, scale,
                                           part.dz);
        }
        EXPECT_TRUE(close(joined(parts, expected), expected.dz.values, tolerance(type),
                          /*typical=*/scale))
            << "dz, in place " << in_place;
      }
    }
  }
};

TEST_F(CrossEntropyOfParts, AgreesWithPlainLoop) {
  for (const DType type : kAccumTypes) {
    for (const auto& [rows, vocabulary] : kExtents) {
      for (int ranks = 1; ranks <= std::min(4, vocabulary); ++ranks) {
        SCOPED_TRACE(testing::Message() << name_of(type) << " (" << rows << ", " << vocabulary
                                        << ") of " << ranks << " ranks");
        tensors_ = Tensors(exec_);
        expect_parts(tensors_.random("z", type, rows, vocabulary), make_labels(rows, vocabulary),
                     0.37, ranks);
      }
    }
  }
}

TEST_F(CrossEntropyOfParts, LargeLogitsStayExact) {
  for (const DType type : kAccumTypes) {
    for (const int ranks : {1, 2, 3, 4}) {
      expect_parts(
          tensors_.values(
              type, {1e4, -1e4, 0, 1e4, -1e4, -1e4, -1e4, -1e4, 1e4, 1e4, 1e4, 1e4, -1e4, 0, 1, 2},
              4, 4),
          {1, 3, 0, 0}, 1, ranks);
    }
  }
}

TEST_F(CrossEntropyOfParts, ANaNReachesTheLossOfItsRowAlone) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const DType type : kAccumTypes) {
    for (const int ranks : {2, 5}) {
      for (int place = 0; place < 5; ++place) {
        std::vector<double> values(10, 0.5);
        values[static_cast<std::size_t>(place)] = kNaN;
        const View1<double> loss = doubles(2);
        merge(cut(tensors_.values(type, values, 2, 5), ranks), tensors_.integers({1, 1}), loss);
        EXPECT_TRUE(std::isnan(to_host(exec_, loss)[0])) << place << " of " << ranks;
        EXPECT_NEAR(to_host(exec_, loss)[1], std::log(5.0), 1e-6);
      }
    }
  }
}

TEST_F(CrossEntropy, GradientIsThatOfTheLoss) {
  constexpr double kScale = 0.3;
  const AnyView z = tensors_.random("z", DType::fp64, 4, 5);
  const AnyView dz = tensors_.poisoned(DType::fp64, 4, 5);
  const View1<const int> labels = tensors_.integers({2, -1, 0, 4});
  const View1<double> loss = doubles(4);
  ops::cross_entropy_gradient(exec_, z, labels, kScale, loss, dz);
  const auto objective = [&] {
    ops::cross_entropy(exec_, z, labels, loss);
    return kScale * dot(to_host(exec_, loss), {1, 1, 1, 1});
  };
  expect_gradient(dz, z, objective, "dz");
}

}  // namespace
}  // namespace konclave
