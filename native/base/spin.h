// Looking again and again before going to sleep. Waking a sleeping core is what costs most of a
// fault, and a core that nobody else wants costs nothing.
#ifndef PAGEMESH_BASE_SPIN_H_
#define PAGEMESH_BASE_SPIN_H_

#include <atomic>
#include <cstdint>

namespace pagemesh {

uint64_t NowNs();  // CLOCK_MONOTONIC
bool MaySpin();    // not on a single core

// Whether looking is worth it: as long as it finds something in time, on a core that nobody else
// wants. A spinner that loses its core knows that somebody does, and sleeps at once: one that
// sleeps is woken before what computes there has used up its slice, one that only yields is not.
// While looking is not worth it, one spin in a few tries whether it is again, and fewer each time
// that the core turns out to be wanted. On a single core it never is. Any thread; updates that
// cross are lost, which does no harm.
class SpinPolicy {
 public:
  explicit SpinPolicy(uint64_t most_ns) : most_ns_(most_ns) {}

  // For how long to spin now; 0 is not at all.
  uint64_t Begin();
  void OnFound();
  void OnNothing();
  void OnDisplaced();

 private:
  static constexpr uint32_t kMostTrust = 3;  // failures until spinning stops
  static constexpr uint32_t kTryOneIn = 8, kTryOneInAtLeast = 1024;

  const uint64_t most_ns_;
  std::atomic<uint32_t> trust_{kMostTrust};
  std::atomic<uint32_t> skipped_{0};
  std::atomic<uint32_t> try_one_in_{kTryOneIn};
};

// One spin:  Spin spin(&policy);  do { if (look()) { spin.Found(); break; } } while (spin.GoOn());
// Async-signal-safe.
class Spin {
 public:
  explicit Spin(SpinPolicy* policy);
  Spin(const Spin&) = delete;
  Spin& operator=(const Spin&) = delete;

  // Breathes, and tells whether to look again.
  bool GoOn();
  void Found();

 private:
  SpinPolicy* const policy_;
  const uint64_t budget_ns_;
  uint64_t start_ns_ = 0, last_ns_ = 0;
  uint32_t rounds_ = 0;
};

}  // namespace pagemesh

#endif  // PAGEMESH_BASE_SPIN_H_
