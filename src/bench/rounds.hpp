#pragma once

#include "bench/statistics.hpp"
#include "comm/transport.hpp"

#include <functional>
#include <string>
#include <vector>

namespace konclave {

/// What was measured of one piece of work.
struct Timing {
  Spread seconds;           ///< of a call, on the rank that was slowest in its round
  Spread calls_per_second;  ///< of all ranks together, each by its own time
};

/// Times pieces of work in rounds: each has its turn in every round, so that whatever else the
/// machine does meets all of them alike, and what is compared was measured at the same time. All
/// ranks begin a piece together and pass the same pieces in the same order; a piece may
/// communicate.
class Rounds {
 public:
  /// `shortest`: seconds that a piece takes in a round at least; short ones are called repeatedly.
  Rounds(const Transport& world, const ExecSpace& exec, int repetitions, double shortest = 0.01);

  /// Number of the piece. What `call` puts on the execution space is waited for.
  std::size_t add(std::function<void()> call);
  /// A piece that is called once a round, however short it is.
  std::size_t add_single(std::function<void()> call);

  /// One call of every piece, not timed, then the rounds. Collective.
  void run();
  const Timing& timing(std::size_t piece) const { return timings_.at(piece); }

 private:
  struct Piece {
    std::function<void()> call;
    bool is_single = false;
    int calls = 1;                ///< in a round
    std::vector<double> seconds;  ///< of a call, in each round
  };

  double seconds_of(const Piece& piece) const;
  int calls_for(const Piece& piece) const;
  Timing gather(const Piece& piece) const;

  const Transport& world_;
  ExecSpace exec_;
  int repetitions_;
  double shortest_;
  std::vector<Piece> pieces_;
  std::vector<Timing> timings_;
};

}  // namespace konclave
