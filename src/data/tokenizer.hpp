#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// Text to token ids and back. Knows nothing of encodings: a text is bytes.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids are 0 .. vocab_size - 1. The vocabulary of a model may be larger (padding), not smaller.
  virtual int vocab_size() const = 0;
  virtual std::vector<int> encode(std::string_view text) const = 0;
  /// Throws Error(input) for an id outside of the vocabulary.
  virtual std::string decode(std::span<const int> ids) const = 0;
};

/// One token per byte, ids 0 .. 255: needs no file, takes any text and gives it back unchanged.
class ByteTokenizer final : public Tokenizer {
 public:
  int vocab_size() const override { return 256; }
  std::vector<int> encode(std::string_view text) const override;
  std::string decode(std::span<const int> ids) const override;
};

/// The tokenizer that the deck calls `name`; throws Error(deck) for one that is not known.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace konclave
