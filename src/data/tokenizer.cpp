#include "data/tokenizer.hpp"

#include "base/error.hpp"

namespace konclave {

std::vector<int> ByteTokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  ids.reserve(text.size());
  for (const char letter : text) ids.push_back(static_cast<unsigned char>(letter));
  return ids;
}

std::string ByteTokenizer::decode(std::span<const int> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const int id : ids) {
    require(id >= 0 && id < vocab_size(),
            "tokenizer \"bytes\" has ids 0 to 255, not " + std::to_string(id), ExitCode::input);
    text.push_back(static_cast<char>(static_cast<unsigned char>(id)));
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  require(name == "bytes", "data.tokenizer = \"" + name + "\" is not known; there is \"bytes\"",
          ExitCode::deck);
  return std::make_unique<ByteTokenizer>();
}

}  // namespace konclave
