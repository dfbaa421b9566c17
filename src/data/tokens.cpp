#include "data/tokens.hpp"

#include "base/error.hpp"
#include "data/safetensors.hpp"

#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace konclave {

namespace {

std::string describe(const SafetensorsEntry& entry) {
  std::string text = entry.dtype + " (";
  for (std::size_t axis = 0; axis < entry.shape.size(); ++axis) {
    text += (axis > 0 ? ", " : "") + std::to_string(entry.shape[axis]);
  }
  return text + ")";
}

template <typename Integer> std::vector<std::int64_t> widened(const SafetensorsEntry& entry) {
  std::vector<Integer> values(entry.bytes / sizeof(Integer));
  if (!values.empty()) std::memcpy(values.data(), entry.data, entry.bytes);
  return {values.begin(), values.end()};
}

/// The values of an integer matrix; `what` names file and tensor.
std::vector<std::int64_t> read_matrix(const SafetensorsEntry& entry, const std::string& what) {
  require((entry.dtype == "I64" || entry.dtype == "I32") && entry.shape.size() == 2,
          what + " is " + describe(entry) + ", not I64 or I32 of shape (rows, sequence length)",
          ExitCode::input);
  return entry.dtype == "I64" ? widened<std::int64_t>(entry) : widened<std::int32_t>(entry);
}

/// Appends values in `lowest` .. vocab_size - 1.
void append_ids(const std::vector<std::int64_t>& values, std::int64_t columns, std::int64_t lowest,
                int vocab_size, const std::string& what, std::vector<int>& ids) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto place = static_cast<std::int64_t>(i);
    if (values[i] < lowest || values[i] >= vocab_size) {
      fail(what + ", row " + std::to_string(place / columns) + ", column " +
               std::to_string(place % columns) + " (from 0): " + std::to_string(values[i]) +
               " is no token, model.vocab_size = " + std::to_string(vocab_size),
           ExitCode::input);
    }
    ids.push_back(static_cast<int>(values[i]));
  }
}

void append_shifted(std::span<const int> tokens, int length, std::vector<int>& labels) {
  const std::size_t begin = labels.size();
  labels.resize(begin + tokens.size());
  const auto row = static_cast<std::size_t>(length);
  for (std::size_t at = 0; at < tokens.size(); at += row) {
    shift_labels(tokens.subspan(at, row), std::span(labels).subspan(begin + at, row));
  }
}

}  // namespace

TokenTable read_tokens(const std::vector<std::string>& files, int sequence_length, int vocab_size) {
  std::vector<int> tokens, labels;
  for (const std::string& path : files) {
    const SafetensorsFile file = SafetensorsFile::open(path);
    const SafetensorsEntry& inputs = file.at("input_ids");
    const std::string what = path + ": tensor input_ids";
    std::vector<std::int64_t> values = read_matrix(inputs, what);
    require(!values.empty(), what + " is empty, " + describe(inputs), ExitCode::input);
    if (sequence_length == 0) sequence_length = static_cast<int>(inputs.shape[1]);
    require(inputs.shape[1] == sequence_length,
            what + " has rows of " + std::to_string(inputs.shape[1]) + " tokens, not of " +
                std::to_string(sequence_length) + " (model.sequence_length, or the file before)",
            ExitCode::input);
    const std::size_t begin = tokens.size();
    append_ids(values, sequence_length, 0, vocab_size, what, tokens);

    const SafetensorsEntry* const given = file.find("labels");
    if (given == nullptr) {
      append_shifted(std::span(tokens).subspan(begin), sequence_length, labels);
      continue;
    }
    const std::string of_labels = path + ": tensor labels";
    values = read_matrix(*given, of_labels);
    require(given->shape == inputs.shape,
            of_labels + " is " + describe(*given) + ", input_ids " + describe(inputs),
            ExitCode::input);
    for (std::int64_t& label : values) label = label < 0 ? kNotScored : label;
    append_ids(values, sequence_length, kNotScored, vocab_size, of_labels, labels);
  }
  return {std::move(tokens), std::move(labels), sequence_length};
}

}  // namespace konclave
