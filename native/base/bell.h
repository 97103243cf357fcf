// Where members on one host wake each other: memory of each process that the others map too. What
// they write there is a hint: at worst somebody looks in vain, or sleeps until the next one.
#ifndef PAGEMESH_BASE_BELL_H_
#define PAGEMESH_BASE_BELL_H_

#include <atomic>
#include <cstdint>

namespace pagemesh {

constexpr uint32_t kBellSlots = 2048;  // one for each thread that waits in a fault

struct Bell {
  // What the engine does: whoever has news for one that sleeps wakes it by its descriptor.
  static constexpr uint32_t kAwake = 0, kSleeps = 1, kRung = 2;
  alignas(64) std::atomic<uint32_t> engine;
  // How many threads look for answers just now. They see to it that the engine hears of the rest.
  alignas(64) std::atomic<uint32_t> lookers;
  struct Slot {
    std::atomic<uint32_t> asleep;  // 1: the slot's thread sleeps, or is about to
    std::atomic<uint32_t> rings;   // the futex that it sleeps on: changes when it is to look again
  };
  alignas(64) Slot slots[kBellSlots];
  // Of the program's thread where it waits for the token of a lock.
  alignas(64) Slot program;

  // A barrier at which the program's thread waits: which one in the upper half, and below it a bit
  // for each member that has not come yet. 0: it waits at none. Whoever comes takes its bit away,
  // and the last one rings, so that a barrier costs each member one wake-up.
  alignas(64) std::atomic<uint64_t> awaited;
  Slot barrier;
  // 1: the engine, if it sleeps, is to hear of arrivals too.
  std::atomic<uint32_t> engine_awaits;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "members share these words");

// This process's own, which stays for good. Never nullptr.
Bell* OwnBell();
// Its memory, to be given to others; -1 if it could not be shared.
int OwnBellFd();

// Wakes the thread in a slot of anybody's bell. Async-signal-safe.
void Ring(Bell::Slot* slot);
// The same if it sleeps, or is about to; whether it does.
bool RingIfAsleep(Bell::Slot* slot);
// Sleeps until the slot's rings are no longer `heard`, or for no reason. `most_ns`: 0 is no limit.
void WaitForRing(Bell::Slot* slot, uint32_t heard, uint64_t most_ns = 0);

// A member has come to the barrier `which`, not 0: rings if it is the last one that is awaited.
void TellArrival(Bell* bell, uint32_t which, int rank);

}  // namespace pagemesh

#endif  // PAGEMESH_BASE_BELL_H_
