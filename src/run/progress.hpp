#pragma once

#include "run/config.hpp"

#include <spdlog/logger.h>

#include <cstdint>
#include <string>

namespace konclave {

/// Where a run is, for people: a bar on a terminal, one line every log.interval steps elsewhere.
class Progress {
 public:
  struct Point {
    std::int64_t step = 0;
    double loss = 0, validation_loss = -1;  ///< below 0: none yet
    double tokens_per_second = 0, seconds_left = 0;
  };

  Progress(const LogConfig& config, std::int64_t steps, spdlog::logger& log);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const Point& point);
  /// Ends the bar's line, so that what is logged next stands alone.
  void pause();

 private:
  bool bar_, lines_;
  bool open_ = false;  ///< the bar's line has no end yet
  std::int64_t interval_, steps_;
  spdlog::logger& log_;
};

}  // namespace konclave
