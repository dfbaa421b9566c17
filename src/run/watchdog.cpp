#include "run/watchdog.hpp"

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/text.hpp"
#include "run/hang_report.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <set>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace konclave {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPeriod{200};
/// A longer period is one in which the process was stopped, or the machine slept.
constexpr milliseconds kLongestPeriod{1000};
constexpr milliseconds kPatience{3000};  ///< for evidence, beside the time between two looks
/// For all of it: a file system or a reader of stderr may hang, too.
constexpr std::chrono::seconds kLongest{60};
constexpr const char* kReport = "report.txt";

/// Between two looks for the folder: a file system gets at most a thousand of them in a second.
milliseconds between_looks(int ranks) { return milliseconds(1000 + ranks); }

bool is_there(const std::filesystem::path& path) {
  std::error_code none;
  return std::filesystem::exists(path, none);
}

void say(const std::string& text) {
  std::signal(SIGPIPE, SIG_IGN);
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

std::filesystem::path fresh_hang_folder(const std::filesystem::path& run) {
  std::filesystem::path path = std::filesystem::absolute(run) / "hang";
  for (int number = 2; is_there(path); ++number) {
    path.replace_filename("hang-" + std::to_string(number));
  }
  return path;
}

Watchdog::Watchdog(HangFolder folder, std::shared_ptr<const CommunicationLog> log)
    : folder_(std::move(folder)),
      log_(std::move(log)),
      thread_([this](const std::stop_token& stop) { watch(stop); }) {}

void Watchdog::expect(std::string what, double seconds) {
  const std::scoped_lock lock(mutex_);
  task_ = {std::move(what), seconds, 0};
}

void Watchdog::watch(const std::stop_token& stop) {
  const milliseconds pause = between_looks(folder_.ranks);
  Clock::time_point before = Clock::now(), looked = before;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, stop, kPeriod, [&] { return stop.stop_requested(); })) {
    const Clock::time_point now = Clock::now();
    const auto period = std::min<Clock::duration>(now - before, kLongestPeriod);
    before = now;
    task_.seconds += std::chrono::duration<double>(period).count();
    const Task task = task_;
    lock.unlock();
    if (task.limit > 0 && task.seconds > task.limit) end_job(task);
    if (now - looked > pause) {
      looked = now;
      if (is_there(folder_.path)) end_job(task);
    }
    lock.lock();
  }
}

void Watchdog::end_job(const Task& task) const {
  std::thread([last = kLongest + 2 * between_looks(folder_.ranks)] {
    std::this_thread::sleep_for(last);
    ::_exit(static_cast<int>(ExitCode::internal));
  }).detach();
  try {
    leave_evidence(task);
    if (wait_for_evidence() == folder_.rank) report();
    // Whoever leaves first ends the others, so the report comes before.
    for (milliseconds waited{0}; !is_there(folder_.path / kReport) && waited < kPatience;) {
      std::this_thread::sleep_for(kPeriod);
      waited += kPeriod;
    }
  } catch (const std::exception& error) {
    say("[rank " + std::to_string(folder_.rank) + "] fatal: " + task.what +
        " hangs, and its watchdog cannot say why: " + error.what() + "\n");
  }
  ::_exit(static_cast<int>(ExitCode::internal));
}

std::filesystem::path Watchdog::file_of(int rank) const {
  return folder_.path / ("rank-" + std::to_string(rank) + ".json");
}

void Watchdog::leave_evidence(const Task& task) const {
  std::error_code error;
  std::filesystem::create_directories(folder_.path, error);
  if (error) fail_io("create", folder_.path, error.value());
  replace_text(file_of(folder_.rank), evidence_json({process_label(), task.what, task.seconds,
                                                     task.limit, log_->ledger().state()}));
}

int Watchdog::wait_for_evidence() const {
  const milliseconds pause = between_looks(folder_.ranks);
  const Clock::time_point end = Clock::now() + kPatience + 2 * pause;
  while (true) {
    std::set<int> there;
    for (const std::string& name : list_folder(folder_.path)) {
      int rank = 0;
      if (std::sscanf(name.c_str(), "rank-%d.json", &rank) == 1) there.insert(rank);
    }
    const bool all = there.size() == static_cast<std::size_t>(folder_.ranks);
    if (all || Clock::now() > end) return there.empty() ? -1 : *there.begin();
    std::this_thread::sleep_for(std::min(kPeriod, pause));
  }
}

void Watchdog::report() const {
  EvidenceOfRanks ranks(static_cast<std::size_t>(folder_.ranks));
  for (int rank = 0; rank < folder_.ranks; ++rank) {
    if (!is_there(file_of(rank))) continue;
    ranks[static_cast<std::size_t>(rank)] = read_evidence(read_text(file_of(rank)));
  }
  const std::vector<std::string> lines = explain_hang(ranks);
  const std::string prefix = "[rank " + std::to_string(folder_.rank) + "] fatal: ";
  say(prefix + join(lines, "\n" + prefix) + "\n");
  write_text(folder_.path / kReport, join(lines, "\n") + "\n");
}

}  // namespace konclave
