#include "run/run_folder.hpp"

#include "base/error.hpp"

#include <cerrno>
#include <cstring>
#include <sstream>

namespace konclave {

namespace {

std::filesystem::path created(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  require(!error, "cannot create the folder " + folder.string() + ": " + error.message(),
          ExitCode::io);
  return folder;
}

void write_file(const std::filesystem::path& file, const std::string& text) {
  const std::filesystem::path fresh = file.string() + ".new";
  std::ofstream out(fresh);
  out << text;
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(fresh, file, error);
  require(out && !error, "cannot write " + file.string() + ": " + std::strerror(errno),
          ExitCode::io);
}

/// The lines of metrics.jsonl up to `step`. A line that does not parse is the end of a killed run.
std::string kept_lines(const std::filesystem::path& file, std::int64_t step) {
  std::ifstream in(file);
  std::string line, kept;
  while (std::getline(in, line)) {
    const auto entry = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (entry.is_object() && entry.value("step", step + 1) <= step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

RunFolder::RunFolder(const RunConfig& run, const CheckpointConfig& checkpoint)
    : path_(created(std::filesystem::path(run.out) / run.name)),
      checkpoints_(checkpoint.folder.empty() ? path_ / "checkpoints"
                                             : std::filesystem::path(checkpoint.folder)),
      lock_(path_) {
  const std::filesystem::path around =
      std::filesystem::absolute(created(checkpoints_)).parent_path();
  if (!std::filesystem::equivalent(around, path_) &&
      !std::filesystem::equivalent(checkpoints_, path_)) {
    checkpoints_lock_.emplace(checkpoints_);
  }
}

void RunFolder::describe(const std::string& deck, const nlohmann::json& provenance) {
  write_file(path_ / "deck.toml", deck);
  write_file(path_ / "provenance.json", provenance.dump(2) + "\n");
}

void RunFolder::write_trace(const std::string& json) const {
  write_file(path_ / "trace.json", json);
}

void RunFolder::write_summary(const nlohmann::json& summary) const {
  write_file(path_ / "summary.json", summary.dump(2) + "\n");
}

void RunFolder::open_metrics(std::int64_t step) {
  const std::filesystem::path file = path_ / "metrics.jsonl";
  write_file(file, kept_lines(file, step));
  metrics_.open(file, std::ios::app);
  require(metrics_.is_open(), "cannot open " + file.string(), ExitCode::io);
}

void RunFolder::write_metrics(const nlohmann::json& line) {
  metrics_ << line.dump() << std::endl;
  require(metrics_.good(),
          "cannot write " + (path_ / "metrics.jsonl").string() + ": " + std::strerror(errno),
          ExitCode::io);
}

}  // namespace konclave
