#include "bench/rounds.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <utility>

namespace konclave {

namespace {

/// Of a piece in a round: bounds how long a run takes when a call is much shorter than the clock
/// can tell.
constexpr double kMostCalls = 10'000;

}  // namespace

Rounds::Rounds(const Transport& world, const ExecSpace& exec, int repetitions, double shortest)
    : world_(world), exec_(exec), repetitions_(repetitions), shortest_(shortest) {}

std::size_t Rounds::add(std::function<void()> call) {
  pieces_.push_back({std::move(call), false, 1, {}});
  return pieces_.size() - 1;
}

std::size_t Rounds::add_single(std::function<void()> call) {
  pieces_.push_back({std::move(call), true, 1, {}});
  return pieces_.size() - 1;
}

double Rounds::seconds_of(const Piece& piece) const {
  using Clock = std::chrono::steady_clock;
  fence(exec_, "konclave::bench::before");
  world_.max(0.0);  // all begin together
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < piece.calls; ++i) piece.call();
  fence(exec_, "konclave::bench::behind");
  return std::chrono::duration<double>(Clock::now() - begin).count() / piece.calls;
}

int Rounds::calls_for(const Piece& piece) const {
  if (piece.is_single) return 1;
  // Behind the first call, which may have made what the next ones use.
  const double seconds = world_.max(seconds_of(piece));
  return static_cast<int>(std::clamp(std::ceil(shortest_ / seconds), 1.0, kMostCalls));
}

void Rounds::run() {
  for (Piece& piece : pieces_) {
    piece.call();
    piece.calls = calls_for(piece);
  }
  for (int round = 0; round < repetitions_; ++round) {
    for (Piece& piece : pieces_) piece.seconds.push_back(seconds_of(piece));
  }
  for (const Piece& piece : pieces_) timings_.push_back(gather(piece));
}

Timing Rounds::gather(const Piece& piece) const {
  std::vector<double> slowest = piece.seconds, rates;
  for (const double seconds : piece.seconds) rates.push_back(1 / seconds);
  world_.max(std::span(slowest));
  world_.sum(std::span(rates));
  return {spread_of(slowest), spread_of(rates)};
}

}  // namespace konclave
