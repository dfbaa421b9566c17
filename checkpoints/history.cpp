#include "checkpoints/history.hpp"

#include "base/file.hpp"
#include "checkpoints/folder_attempt.hpp"
#include "checkpoints/format.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

std::int64_t step_of(const fs::path& checkpoint) {
  return *parse_checkpoint_name(checkpoint.filename().string());
}

/// The first of `candidates` that is whole.
std::optional<Checkpoint> first_good(const std::vector<fs::path>& candidates,
                                     const std::function<void(const std::string&)>& report) {
  for (const fs::path& path : candidates) {
    try {
      Checkpoint checkpoint = Checkpoint::open(path);
      checkpoint.verify();
      return checkpoint;
    } catch (const NewerFormat&) {
      throw;
    } catch (const Error& error) {
      if (error.exit_code() != ExitCode::input) throw;
      report(error.what());
    }
  }
  return {};
}

}  // namespace

std::vector<fs::path> list_checkpoints(const fs::path& checkpoints) {
  std::vector<fs::path> found;
  for (const std::string& name : list_folder(checkpoints)) {
    if (parse_checkpoint_name(name)) found.push_back(checkpoints / name);
  }
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return step_of(a) > step_of(b); });
  return found;
}

std::optional<Checkpoint> newest_good(const fs::path& checkpoints,
                                      const std::function<void(const std::string&)>& report) {
  return first_good(list_checkpoints(checkpoints), report);
}

void remove_old_checkpoints(const fs::path& checkpoints, std::int64_t keep,
                            std::int64_t keep_every) {
  require(keep >= 1, "at least one checkpoint is kept");
  std::vector<fs::path> newest = list_checkpoints(checkpoints), old;
  while (static_cast<std::int64_t>(newest.size()) > keep) {
    const fs::path path = std::move(newest.back());
    newest.pop_back();
    if (keep_every == 0 || step_of(path) % keep_every != 0) old.push_back(path);
  }
  if (old.empty() || !first_good(newest, [](const std::string&) {})) return;
  for (const fs::path& path : old) remove_folder(path);
}

void remove_stale_attempts(const fs::path& checkpoints) {
  clear_attempts(checkpoints, "step-");
  clear_attempts(checkpoints, kLatestFile);
}

}  // namespace konclave
