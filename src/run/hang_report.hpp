#pragma once

#include "comm/call_ledger.hpp"

#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// What a rank of a job that hangs knows of itself.
struct RankEvidence {
  std::string process;  ///< HOST-PID
  std::string doing;    ///< "step 12"
  double seconds = 0;   ///< since it began that
  double limit = 0;     ///< seconds that it may take; 0: for ever
  LedgerState calls;
};

/// By rank of the world. Nothing from a rank is evidence, too.
using EvidenceOfRanks = std::vector<std::optional<RankEvidence>>;

std::string evidence_json(const RankEvidence& evidence);
/// The reverse. Throws Error(io) for a text that is none.
RankEvidence read_evidence(const std::string& json);

/// Why a job hangs, in lines: what took too long, who is missing where, whose calls don't fit, and
/// the last calls of each rank.
std::vector<std::string> explain_hang(const EvidenceOfRanks& ranks);

}  // namespace konclave
