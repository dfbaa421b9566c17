#pragma once

#include "base/error.hpp"
#include "comm/communicator.hpp"

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace konclave {

/// An error that all ranks of the job throw together. It may unwind and be caught, since no rank is
/// left behind in a collective: the one kind of error that a run with several ranks can go on
/// after, or end with in order. Every other error is one rank's own and ends the job where it is
/// thrown (comm/environment.hpp).
class AgreedError : public Error {
 public:
  explicit AgreedError(const std::string& text, ExitCode code = ExitCode::internal,
                       SourceLocation where = {})
      : Error(text, code, where) {}
};

/// Collective. Returns when no rank passes an error; else all throw AgreedError with text and code
/// of the lowest rank that does.
void agree_on_error(const Communicator& world, const std::optional<Error>& mine);

/// Collective. Runs `work`, which does not communicate, on every rank of `world`. If it throws an
/// Error on any of them, all ranks throw AgreedError with the message of the lowest such rank.
template <typename Work>
std::invoke_result_t<Work> together(const Communicator& world, Work&& work) {
  std::optional<Error> error;
  if constexpr (std::is_void_v<std::invoke_result_t<Work>>) {
    try {
      work();
    } catch (const Error& caught) {
      error = caught;
    }
    agree_on_error(world, error);
  } else {
    std::optional<std::invoke_result_t<Work>> result;
    try {
      result.emplace(work());
    } catch (const Error& caught) {
      error = caught;
    }
    agree_on_error(world, error);
    return *std::move(result);
  }
}

/// Collective. Runs `work` on rank 0 alone; if it throws an Error there, all ranks throw
/// AgreedError.
template <typename Work> void on_root(const Communicator& world, Work&& work) {
  together(world, [&] {
    if (world.rank() == 0) work();
  });
}

}  // namespace konclave
