#include "checkpoints/format.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace konclave {

namespace {

constexpr std::string_view kStepPrefix = "step-";
constexpr std::size_t kStepDigits = 8;

constexpr std::array<std::pair<DType, std::string_view>, 3> kStoredNames = {
    {{DType::bf16, "bfloat16"}, {DType::fp32, "float32"}, {DType::fp64, "float64"}}};

}  // namespace

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

std::int64_t TensorInfo::bytes() const {
  return elements() * static_cast<std::int64_t>(size_of(type));
}

std::string TensorInfo::shape_text() const {
  std::vector<std::string> extents;
  for (const std::int64_t extent : shape) extents.push_back(std::to_string(extent));
  return std::string("(").append(join(extents, ", ")).append(")");
}

std::string_view stored_name(DType type) {
  for (const auto& [known, name] : kStoredNames) {
    if (known == type) return name;
  }
  fail("unknown element type");
}

std::optional<DType> parse_stored_name(std::string_view name) {
  for (const auto& [type, known] : kStoredNames) {
    if (known == name) return type;
  }
  return {};
}

std::string checkpoint_name(std::int64_t step) {
  const std::string digits = std::to_string(step);
  const std::size_t zeros = kStepDigits - std::min(kStepDigits, digits.size());
  return std::string(kStepPrefix) + std::string(zeros, '0') + digits;
}

std::optional<std::int64_t> parse_checkpoint_name(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return {};
  const std::string_view digits = name.substr(kStepPrefix.size());
  std::int64_t step = 0;
  const auto [rest, error] = std::from_chars(digits.begin(), digits.end(), step);
  // Written the way we write it: "step-7" beside "step-00000007" would be one step twice.
  const bool ours = error == std::errc() && rest == digits.end() && checkpoint_name(step) == name;
  return ours ? std::optional(step) : std::nullopt;
}

}  // namespace konclave
