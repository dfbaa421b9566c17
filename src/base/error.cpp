#include "base/error.hpp"

namespace konclave {

Error::Error(const std::string& text, ExitCode code, SourceLocation where)
    : std::runtime_error(text),
      code_(code),
      where_(std::string(where.file) + ":" + std::to_string(where.line)) {}

void fail(std::string_view text, ExitCode code, SourceLocation where) {
  throw Error(std::string(text), code, where);
}

}  // namespace konclave
