#include "app/commands.hpp"
#include "checkpoints/hugging_face.hpp"
#include "deck/deck.hpp"
#include "deck/model_deck.hpp"
#include "run/model_source.hpp"

namespace konclave::app {

namespace {

void from_hugging_face(const Arguments& arguments, spdlog::logger& log) {
  const HfFolder source(arguments.source, arguments.sequence_length);
  convert_from_hf(source, arguments.target, model_deck(source.definition(), arguments.source));
  log.info("{} tensors of {} are in {}", source.tensors().size(), arguments.source,
           arguments.target);
}

void to_hugging_face(const Arguments& arguments, spdlog::logger& log) {
  const Checkpoint source = open_checkpoint(arguments.source);
  const Deck deck =
      read_deck_text(source.deck(), (source.folder() / kDeckFile).string(), {}, DeckUse::model);
  convert_to_hf(source, deck.definition, arguments.target);
  log.info("{} is in {}", source.folder().string(), arguments.target);
}

}  // namespace

ExitCode run_convert(const Arguments& arguments, spdlog::logger& log) {
  if (arguments.command == "convert from-hf") {
    from_hugging_face(arguments, log);
  } else {
    to_hugging_face(arguments, log);
  }
  return ExitCode::done;
}

}  // namespace konclave::app
