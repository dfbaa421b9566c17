#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace konclave {

/// Exit codes that a batch script may rely on; docs/deck.md lists when each is used.
enum class ExitCode {
  done = 0,
  differs = 1,  // `compare`, as diff and cmp do
  usage = 64,
  deck = 65,
  input = 66,
  resource = 69,
  internal = 70,
  io = 74,
  resubmit = 75,
  numerics = 76,
  memory = 78,
};

/// Where a check was written. A default argument of this type names the caller's line. It has a
/// constructor because nvcc 13.0 gives up, without a message, on initialisers of members that ask
/// for the line.
struct SourceLocation {
  const char* file;
  int line;

  constexpr SourceLocation(const char* in = __builtin_FILE(), int at = __builtin_LINE())
      : file(in), line(at) {}
};

/// An error on this rank: what went wrong, where in the code, and the code to leave with.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& text, ExitCode code = ExitCode::internal,
                 SourceLocation where = {});

  ExitCode exit_code() const { return code_; }
  /// "file:line" of the check that failed; shown for internal errors only.
  const std::string& where() const { return where_; }

 private:
  ExitCode code_;
  std::string where_;
};

[[noreturn]] void fail(std::string_view text, ExitCode code = ExitCode::internal,
                       SourceLocation where = {});

/// Throws Error when `ok` is false. `text` states what was wanted, with the numbers.
inline void require(bool ok, std::string_view text, ExitCode code = ExitCode::internal,
                    SourceLocation where = {}) {
  if (!ok) fail(text, code, where);
}

}  // namespace konclave
