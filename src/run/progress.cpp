#include "run/progress.hpp"

#include "base/text.hpp"
#include "comm/launcher_watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <unistd.h>

namespace konclave {

namespace {

/// A launcher may give its ranks a terminal of its own, whatever its output goes to.
bool on_a_terminal() { return ::isatty(STDOUT_FILENO) == 1 && !rank_from_launcher(); }

}  // namespace

Progress::Progress(const LogConfig& config, std::int64_t steps, spdlog::logger& log)
    : bar_(config.progress == "bar" || (config.progress == "auto" && on_a_terminal())),
      lines_(config.progress == "lines" || (config.progress == "auto" && !bar_)),
      interval_(std::max<std::int64_t>(1, config.interval)),
      steps_(steps),
      log_(log) {}

Progress::~Progress() { pause(); }

void Progress::pause() {
  if (!open_) return;
  std::fputc('\n', stdout);
  std::fflush(stdout);
  open_ = false;
}

void Progress::show(const Point& point) {
  const bool last = point.step == steps_;
  if (!last && point.step % interval_ != 0) return;
  std::string text = fmt::format("step {}/{}  loss {:.4f}", point.step, steps_, point.loss);
  if (point.validation_loss >= 0) text += fmt::format("  val {:.4f}", point.validation_loss);
  text += fmt::format("  {:.0f} tokens/s", point.tokens_per_second);
  if (!last) text += "  " + format_duration(point.seconds_left) + " left";
  if (lines_) log_.info("{}", text);
  if (!bar_) return;
  constexpr int kWidth = 24;
  const auto done =
      static_cast<std::size_t>(kWidth * point.step / std::max<std::int64_t>(1, steps_));
  const std::string bar = std::string(done, '#') + std::string(kWidth - done, '.');
  std::fputs(fmt::format("\r[{}] {}\x1b[K", bar, text).c_str(), stdout);
  std::fflush(stdout);
  open_ = true;
}

}  // namespace konclave
