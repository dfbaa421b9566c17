#pragma once

#include "base/error.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace konclave {

/// Expects that `action` throws an Error with `code` whose message has all of `words` in it.
template <typename Action>
void expect_error(Action&& action, ExitCode code, const std::vector<std::string>& words) {
  try {
    action();
    ADD_FAILURE() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), code) << error.what();
    const std::string message = error.what();
    for (const std::string& word : words) {
      EXPECT_TRUE(message.find(word) != message.npos) << "'" << word << "' is not in: " << message;
    }
  }
}

}  // namespace konclave
