#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace konclave {

/// The label of a position that takes no part in the loss.
inline constexpr int kNotScored = -1;

/// Sequences of tokens with their labels, addressed by index; reading has no state and no order.
class Dataset {
 public:
  virtual ~Dataset() = default;

  /// Number of sequences.
  virtual std::int64_t size() const = 0;
  /// Tokens per sequence.
  virtual int sequence_length() const = 0;
  /// Fills sequence `index`, 0 <= index < size(). labels[s] is the token that should follow
  /// tokens[0..s], or kNotScored. Both spans have sequence_length() elements.
  virtual void read(std::int64_t index, std::span<int> tokens, std::span<int> labels) const = 0;
};

/// labels[s] = tokens[s + 1], and kNotScored at the last position: what follows a sequence is not
/// part of it.
void shift_labels(std::span<const int> tokens, std::span<int> labels);

/// Sequences in host memory: N rows of S tokens, one after the other.
class TokenTable final : public Dataset {
 public:
  /// `tokens` are N x S of them; so are `labels`, or there are none, and tokens are shifted.
  TokenTable(std::vector<int> tokens, std::vector<int> labels, int sequence_length);

  std::int64_t size() const override {
    return static_cast<std::int64_t>(tokens_.size()) / sequence_length_;
  }
  int sequence_length() const override { return sequence_length_; }
  void read(std::int64_t index, std::span<int> tokens, std::span<int> labels) const override;

 private:
  std::vector<int> tokens_, labels_;
  int sequence_length_;
};

}  // namespace konclave
