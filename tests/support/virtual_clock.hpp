#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <list>
#include <utility>
#include <vector>

namespace konclave {

/// Seconds from one moment to another.
struct Stretch {
  double begin, end;
};

/// The moment at which messages have moved for `seconds` on two ranks at once, each of which moves
/// them in its stretches; the last of either has no end.
inline double moved_on_both(const std::vector<Stretch>& one, const std::vector<Stretch>& other,
                            double seconds) {
  for (std::size_t i = 0, j = 0;;) {
    const double begin = std::max(one[i].begin, other[j].begin);
    const double end = std::min(one[i].end, other[j].end);
    if (end - begin >= seconds) return begin + seconds;
    seconds -= std::max(0.0, end - begin);
    ++(one[i].end < other[j].end ? i : j);
  }
}

/// Seconds that pass only when somebody says so: the time of one rank. Messages of a rank move
/// inside its calls into the library of communication alone, and for a window of time behind each.
class VirtualClock {
 public:
  explicit VirtualClock(double window = std::numeric_limits<double>::infinity())
      : window_(window) {}

  double now() const { return now_; }
  /// Work that takes so long.
  void advance(double seconds) { now_ += seconds; }
  /// Waiting, in the library, for a moment that may be over.
  void advance_to(double moment) {
    call();
    spend(moment - now_);
  }

  /// From now on polls are no calls into the library.
  void ignore_polls() { polls_count_ = false; }
  bool polls_count() const { return polls_count_; }

  /// A call into the library; gives back for how long messages have moved in all.
  double call() {
    move(last_call_, std::min(now_, last_call_ + window_));
    last_call_ = now_;
    return moved_;
  }
  /// Waiting until they have for so long.
  void wait_until_moved(double seconds) { spend(seconds - call()); }

  /// When a message is through that sets off now and takes `seconds` of a link that carries one at
  /// a time, in the time for which messages have moved.
  double through_link(double seconds) {
    link_free_ = std::max(link_free_, call()) + seconds;
    return link_free_;
  }

  /// When messages have moved since `moment`, and that they do so from now on.
  std::vector<Stretch> moving_since(double moment) {
    call();
    std::vector<Stretch> stretches;
    for (auto one = moving_.rbegin(); one != moving_.rend() && one->end > moment; ++one) {
      stretches.insert(stretches.begin(), {std::max(moment, one->begin), one->end});
    }
    const double end = std::numeric_limits<double>::infinity();
    if (!stretches.empty() && stretches.back().end == now_) {
      stretches.back().end = end;
    } else {
      stretches.push_back({now_, end});
    }
    return stretches;
  }

  /// What this rank has yet to tell others, who may be what it waits for: said before any wait, in
  /// the order in which it was added, or when `tell` asks for one and all before it.
  using News = std::list<std::function<void()>>;
  News::iterator keep(std::function<void()> news) {
    return news_.insert(news_.end(), std::move(news));
  }
  void tell(News::iterator last) {
    for (bool more = true; more;) {
      more = news_.begin() != last;
      tell_first();
    }
  }
  void tell_all() {
    while (!news_.empty()) tell_first();
  }

 private:
  void spend(double seconds) {
    move(now_, now_ + std::max(0.0, seconds));
    now_ += std::max(0.0, seconds);
    last_call_ = now_;
  }
  void move(double begin, double end) {
    if (end <= begin) return;
    moved_ += end - begin;
    if (!moving_.empty() && moving_.back().end == begin) {
      moving_.back().end = end;
    } else {
      moving_.push_back({begin, end});
    }
  }
  void tell_first() {
    const std::function<void()> news = std::move(news_.front());
    news_.pop_front();
    news();
  }

  bool polls_count_ = true;
  double window_, now_ = 0, last_call_ = 0, moved_ = 0, link_free_ = 0;
  std::vector<Stretch> moving_;
  News news_;
};

}  // namespace konclave
