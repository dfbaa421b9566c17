#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"

#include <vector>

/// What goes round a ring of ranks beside attention, whose last call is the last product of each
/// turn: messages get on in `poll` there. While attention goes on, which is one call, they move as
/// far as a library does by itself behind its calls.
namespace konclave {

/// Keys and values of a rank, or their gradients.
template <typename Tensor> struct KeyValuePair { Tensor k, v; };

/// Where tensors go: each rank sends to the one behind it and receives from the one before. Keys,
/// values and gradients go on channels of their own, as they are under way at the same time.
class AttentionRing {
 public:
  static constexpr int kKeys = 0, kGradients = 2;  ///< the first of two channels

  explicit AttentionRing(const Transport& group) : group_(group) {}

  int ranks() const { return group_.size(); }
  /// The rank whose keys are here at a step: those of this one at first.
  int source(int step) const { return (group_.rank() + ranks() - step) % ranks(); }

  void start_receive(const ExecSpace& exec, const KeyValuePair<AnyView>& pair, int channel,
                     std::vector<Request>& requests) const;
  void start_send(const ExecSpace& exec, const KeyValuePair<AnyIn>& pair, int channel,
                  std::vector<Request>& requests) const;

 private:
  const Transport& group_;
};

/// Keys and values on their way round. While those of one rank are worked on, those of the next
/// arrive: so at most two chunks are held beside the rank's own.
class KeysOnTheWay {
 public:
  /// Takes scratch memory for as long as it lives.
  KeysOnTheWay(const Context& context, const AttentionRing& ring, const KeyValuePair<AnyIn>& own);

  const KeyValuePair<AnyIn>& here() const { return here_; }

  /// Begins to pass on what is here and to receive what comes next; nothing at the last step.
  void start_turn();
  void finish_turn();
  void poll();

 private:
  /// Not the buffer in which `here_` is.
  const KeyValuePair<AnyView>& next() const {
    return buffers_[static_cast<std::size_t>(step_) % buffers_.size()];
  }

  ExecSpace exec_;
  const AttentionRing& ring_;
  std::vector<KeyValuePair<AnyView>> buffers_;
  KeyValuePair<AnyIn> here_;
  int step_ = 0;
  std::vector<Request> requests_;
};

/// Sums of the gradients of keys and values, in the accumulation type. They follow their keys from
/// rank to rank, each of which adds its part, and are at home after as many turns as there are
/// ranks.
class GradientsOnTheWay {
 public:
  /// Takes scratch memory for as long as it lives.
  GradientsOnTheWay(const Context& context, const AttentionRing& ring,
                    const KeyValuePair<AnyIn>& keys);

  const KeyValuePair<AnyView>& here() const { return here_; }
  void add(const AnyIn& dk, const AnyIn& dv) const;

  void send();
  void start_arrival();
  /// After this the sums that arrived are here.
  void finish_arrival();
  void poll();

 private:
  ExecSpace exec_;
  const AttentionRing& ring_;
  KeyValuePair<AnyView> here_, next_;
  std::vector<Request> leaving_, arriving_;
};

/// sum += x, element by element, in the accumulation type.
void accumulate(const ExecSpace& exec, const AnyIn& x, const AnyView& sum);

}  // namespace konclave
