#include "parallel/layout_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>

namespace konclave {
namespace {

constexpr std::size_t kMostLetters = 100'000;  // far above any model, and soon written out

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

/// Writes the repeats out, from the left to the right, until something cannot be read.
class Unroller {
 public:
  explicit Unroller(std::string text) : text_(std::move(text)) {}

  void run() {
    while (at_ < text_.size() && mistake_.empty()) {
      letters_ += text_[at_] == '(' ? group() : item();
      check_length(letters_.size());
    }
  }
  const std::string& letters() const { return letters_; }
  const std::string& mistake() const { return mistake_; }

 private:
  bool is_at(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void refuse(const std::string& why) {
    if (mistake_.empty()) mistake_ = why;
  }
  void check_length(std::size_t letters) {
    if (letters > kMostLetters) refuse(fmt::format("it has more than {} letters", kMostLetters));
  }

  /// "(...)*n"
  std::string group() {
    ++at_;
    std::string inside;
    while (at_ < text_.size() && text_[at_] != ')' && mistake_.empty()) inside += item();
    if (at_ == text_.size()) refuse("\"(\" without \")\"");
    ++at_;
    if (!is_at('*')) refuse("behind \")\" comes *n, as in (tt|)*2");
    return repeated(inside);
  }

  /// A letter or "|", perhaps with *n.
  std::string item() {
    const char letter = text_[at_++];
    refuse_other_than_items(letter);
    return repeated(std::string(1, letter));
  }

  void refuse_other_than_items(char letter) {
    if (std::string_view("EtL|").find(letter) != std::string_view::npos) return;
    if (letter == 'm') {
      refuse("m is a layer of multi-token prediction, and there are none here; leave it out");
    } else if (letter == '(') {
      refuse("a group within a group; write the inner one out");
    } else if (letter == ')') {
      refuse("\")\" without \"(\"");
    } else if (letter == '*') {
      refuse("\"*\" stands behind a letter, \"|\" or \")\"");
    } else {
      refuse(
          fmt::format("there is no \"{}\"; it is made of E, t, L and |, x*n and (...)*n", letter));
    }
  }

  std::string repeated(const std::string& piece) {
    if (!mistake_.empty() || !is_at('*')) return piece;
    ++at_;
    if (at_ == text_.size() || !is_digit(text_[at_])) refuse("\"*\" without a number behind it");
    std::size_t times = 0;
    while (at_ < text_.size() && is_digit(text_[at_])) {
      times = std::min(10 * times + static_cast<std::size_t>(text_[at_++] - '0'), kMostLetters + 1);
    }
    check_length(times * piece.size());
    std::string all;
    for (std::size_t i = 0; i < times && mistake_.empty(); ++i) all += piece;
    return all;
  }

  std::string text_, letters_, mistake_;
  std::size_t at_ = 0;
};

}  // namespace

LayoutText read_layout(const std::string& text) {
  std::string without_commas = text;
  std::erase(without_commas, ',');
  Unroller unroller(std::move(without_commas));
  unroller.run();
  if (!unroller.mistake().empty())
    return {{}, fmt::format(" = \"{}\": {}", text, unroller.mistake())};

  LayoutText layout;
  layout.parts.emplace_back();
  for (const char letter : unroller.letters()) {
    if (letter == '|') {
      layout.parts.emplace_back();
    } else {
      layout.parts.back() += letter;
    }
  }
  return layout;
}

}  // namespace konclave
