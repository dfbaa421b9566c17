#include "run/compare_weights.hpp"

#include "checkpoints/format.hpp"
#include "checkpoints/values.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

namespace konclave {

namespace {

/// Elements read at a time: whole blocks of checksums in every type.
constexpr std::int64_t kPiece = kChecksumBlock / 2;

/// "optimizer/exp_avg" of "optimizer/exp_avg/model.norm.weight".
std::string group_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('/')); }

Figure figure_of(const std::string& tensor, const Figures& figures) {
  const bool weights = tensor.starts_with(kModelGroup) || tensor.starts_with(kMasterGroup);
  return weights ? figures.weights : figures.moments;
}

std::int64_t experts_of(const TensorInfo& tensor) {
  const bool stacked = tensor.name.find(".moe.experts.") != std::string::npos;
  return stacked && !tensor.shape.empty() ? tensor.shape[0] : 1;
}

std::vector<std::int64_t> indices_of(std::int64_t element, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> indices(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0; element /= shape[axis]) {
    indices[axis] = element % shape[axis];
  }
  return indices;
}

/// Sums of squares of a - b and of b.
struct Sums {
  double difference = 0, reference = 0;

  void add(const Sums& other) {
    difference += other.difference;
    reference += other.reference;
  }
  double error() const { return difference == 0 ? 0 : std::sqrt(difference / reference); }
};

/// A part of a tensor as it is stored and in double.
struct Piece {
  std::vector<std::byte> stored;
  std::vector<double> values;

  void read(const Checkpoint& checkpoint, const TensorInfo& tensor, std::int64_t first,
            std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    stored.resize(size * size_of(tensor.type));
    values.resize(size);
    checkpoint.read(tensor.name, first, count, stored.data());
    convert_values(tensor.type, stored.data(), DType::fp64, values.data(), count);
  }
};

/// One tensor's difference while it is read piece by piece.
class TensorComparison {
 public:
  TensorComparison(const TensorInfo& a, const TensorInfo& b, Figure figure)
      : shape_(a.shape),
        experts_(static_cast<std::size_t>(experts_of(a))),
        slice_(std::max<std::int64_t>(1, a.elements() / std::max<std::int64_t>(1, experts_of(a)))) {
    result_.name = a.name;
    result_.figure = figure;
    result_.equal = a.type == b.type;
  }

  void add(std::int64_t first, const Piece& a, const Piece& b) {
    // Values may agree where bits do not: 0 and -0.
    result_.equal = result_.equal && a.stored == b.stored;
    const auto count = static_cast<std::int64_t>(a.values.size());
    for (std::int64_t i = 0; i < count;) {
      const std::int64_t expert = (first + i) / slice_;
      const std::int64_t end = std::min(count, (expert + 1) * slice_ - first);
      Sums& sums = experts_[static_cast<std::size_t>(expert)];
      for (; i < end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        add_element(first + i, a.values[at], b.values[at], sums);
      }
    }
  }

  TensorDifference result() {
    Sums whole;
    for (std::size_t expert = 0; expert < experts_.size(); ++expert) {
      whole.add(experts_[expert]);
      const double error = experts_[expert].error();
      if (experts_.size() > 1 && error > result_.expert_error) {
        result_.expert_error = error;
        result_.expert = static_cast<std::int64_t>(expert);
      }
    }
    result_.error = whole.error();
    if (largest_ > 0) result_.at = indices_of(element_, shape_);
    return result_;
  }

 private:
  void add_element(std::int64_t element, double a, double b, Sums& sums) {
    const double gap = distance(a, b);
    sums.difference += gap * gap;
    if (std::isfinite(b)) sums.reference += b * b;
    if (gap > largest_) {
      largest_ = gap;
      element_ = element;
      result_.a = a;
      result_.b = b;
    }
  }

  std::vector<std::int64_t> shape_;
  std::vector<Sums> experts_;  // one for a tensor that is not stacked
  std::int64_t slice_;         // elements of an expert
  double largest_ = 0;
  std::int64_t element_ = 0;
  TensorDifference result_;
};

TensorDifference compare_tensor(const Checkpoint& a, const Checkpoint& b, const TensorInfo& in_a,
                                const TensorInfo& in_b, Figure figure, Piece& piece_a,
                                Piece& piece_b) {
  TensorComparison comparison(in_a, in_b, figure);
  const std::int64_t elements = in_a.elements();
  for (std::int64_t first = 0; first < elements; first += kPiece) {
    const std::int64_t count = std::min(kPiece, elements - first);
    piece_a.read(a, in_a, first, count);
    piece_b.read(b, in_b, first, count);
    comparison.add(first, piece_a, piece_b);
  }
  return comparison.result();
}

GroupDifference& group(WeightsComparison& result, const std::string& tensor, Figure figure) {
  const std::string name = group_of(tensor);
  for (GroupDifference& known : result.groups) {
    if (known.name == name) return known;
  }
  return result.groups.emplace_back(GroupDifference{name, figure, 0, 0, 0, {}});
}

void add_tensor(WeightsComparison& result, const TensorDifference& tensor) {
  GroupDifference& in = group(result, tensor.name, tensor.figure);
  in.tensors += 1;
  in.equal += tensor.equal ? 1 : 0;
  in.exceeded += tensor.within() ? 0 : 1;
  if (!tensor.equal && (!in.largest || tensor.error > in.largest->error)) in.largest = tensor;
  if (!tensor.equal && !result.first_unequal) result.first_unequal = tensor;
  if (!tensor.within() && !result.first_exceeded) result.first_exceeded = tensor;
}

/// Names the tensors that `one` has and `other` has not; true when none of them is a difference.
bool list_missing(const Checkpoint& one, const Checkpoint& other, const Figures& figures,
                  std::vector<std::string>& names) {
  std::set<std::string> groups;
  for (const TensorInfo& tensor : other.manifest().tensors) groups.insert(group_of(tensor.name));
  bool complete = true;
  for (const TensorInfo& tensor : one.manifest().tensors) {
    if (other.has(tensor.name)) continue;
    names.push_back(tensor.name);
    const bool model = tensor.name.starts_with(kModelGroup);
    const bool kept = groups.contains(group_of(tensor.name));
    if (model || kept || figures.moments.kind == Figure::Kind::exact) complete = false;
  }
  return complete;
}

}  // namespace

WeightsComparison compare_weights(const Checkpoint& a, const Checkpoint& b,
                                  const Figures& figures) {
  WeightsComparison result;
  result.folder_a = a.folder().string();
  result.folder_b = b.folder().string();
  result.step_a = a.step();
  result.step_b = b.step();
  Piece piece_a, piece_b;
  for (const TensorInfo& in_a : a.manifest().tensors) {
    if (!b.has(in_a.name)) continue;
    const TensorInfo& in_b = b.info(in_a.name);
    if (in_a.shape != in_b.shape) {
      result.other_shape.push_back(in_a.name + " is " + in_a.shape_text() + " and " +
                                   in_b.shape_text());
      continue;
    }
    add_tensor(result,
               compare_tensor(a, b, in_a, in_b, figure_of(in_a.name, figures), piece_a, piece_b));
  }
  const bool all_of_a = list_missing(a, b, figures, result.only_a);
  const bool all_of_b = list_missing(b, a, figures, result.only_b);
  result.complete = all_of_a && all_of_b;
  return result;
}

}  // namespace konclave
