#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// Deck section [run].
struct RunConfig {
  std::string name = "run";
  std::string out = "runs";  ///< folder of runs; this one's is out/name
  std::uint64_t seed = 1234;
  std::int64_t steps = 0;
  std::string resume = "auto";  ///< "auto", "never" or a checkpoint's path
  double time_limit = 0;        ///< seconds; a checkpoint is saved and the run ends before; 0: none
};

/// Deck section [eval].
struct EvalConfig {
  std::int64_t interval = 0;  ///< steps between validations; 0: none
  std::int64_t steps = 0;     ///< global batches of held-out data each time; 0: all of it
};

/// Deck section [checkpoint].
struct CheckpointConfig {
  std::string folder;           ///< "" takes the run's folder: OUT/NAME/checkpoints
  std::int64_t interval = 0;    ///< steps between checkpoints; 0: at the end only
  std::int64_t keep = 2;        ///< newest ones that stay
  std::int64_t keep_every = 0;  ///< those of a multiple of this step stay too; 0: none
  std::string load;             ///< weights to start from
};

/// Deck section [log].
struct LogConfig {
  std::int64_t interval = 1;  ///< steps between lines of progress
  std::string progress =
      "auto";  ///< "auto" (a bar on a terminal, else lines), "bar", "lines", "none"
  std::vector<std::int64_t> trace_steps;  ///< of which there is a trace, ascending from 1 on
  std::string sample_prompt;  ///< at the end the model continues this text; "": no sample
  bool per_layer = false;     ///< metrics of each MoE layer too
  bool tensorboard = true;    ///< scalars for TensorBoard
};

}  // namespace konclave
