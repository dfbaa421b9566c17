#pragma once

#include "deck/deck.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace konclave {

/// A deck with no more than a training run of an MoE model needs. Lines are counted in tests.
inline const std::string kSmallDeck =
    "[run]\n"
    "steps = 20\n"
    "[model]\n"
    "vocab_size = 256\n"
    "sequence_length = 32\n"
    "hidden_size = 64\n"
    "num_layers = 2\n"
    "num_heads = 4\n"
    "[moe]\n"
    "num_experts = 4\n"
    "ffn_hidden_size = 32\n"
    "[batch]\n"
    "global_size = 4\n"
    "[data]\n"
    "files = [\"/data/a.txt\"]\n";
inline constexpr int kSmallDeckLines = 15;

inline Deck read_small(const std::vector<std::string>& overrides = {},
                       DeckUse use = DeckUse::train) {
  return read_deck_text(kSmallDeck, "small.toml", overrides, use);
}

/// What is wrong with a deck; "" when nothing is.
inline std::string errors_of(const std::string& text,
                             const std::vector<std::string>& overrides = {},
                             DeckUse use = DeckUse::train) {
  try {
    read_deck_text(text, "deck.toml", overrides, use);
  } catch (const DeckError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::deck);
    return error.what();
  }
  return "";
}

inline std::string errors_of_small(const std::vector<std::string>& overrides,
                                   DeckUse use = DeckUse::train) {
  return errors_of(kSmallDeck, overrides, use);
}

inline int count_errors(const std::string& text) {
  int count = 0;
  for (std::size_t at = text.find(": error: "); at != std::string::npos;
       at = text.find(": error: ", at + 1)) {
    ++count;
  }
  return count;
}

#define EXPECT_SAYS(text, part) \
  EXPECT_NE(std::string(text).find(part), std::string::npos) << "in:\n" << (text)

}  // namespace konclave
