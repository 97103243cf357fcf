// The barriers that this member uses again and again: how often each member has come to each. The
// program's thread and the engine see these words too (lib/protocol/barrier-words.ts has the
// table); native code counts arrivals as they come, and lets the program's thread wait for them.
#ifndef PAGEMESH_BINDING_BARRIER_WORDS_H_
#define PAGEMESH_BINDING_BARRIER_WORDS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/spin.h"
#include "memory/fault.h"
#include "transport/transport.h"

namespace pagemesh {

enum BarrierWord : uint32_t {
  kBarrierEngineAwaits = 0,  // not 0: the engine wants to hear of arrivals
  kBarrierBroken = 1,        // not 0: a member is gone, and the engine knows what that means
  kBarrierSlotsUsed = 2,
  kBarrierHeaderWords = 16,
};
// Of each barrier's words:
enum BarrierSlotWord : uint32_t {
  kBarrierKeyLow = 0,
  kBarrierKeyHigh = 1,  // with kBarrierBound once the slot is in use
  kBarrierCounts = 8,   // by rank; they wrap around
  kBarrierSlotWords = 40,
};
constexpr uint32_t kBarrierSlots = 256;
constexpr uint32_t kBarrierBound = 0x80000000;
constexpr uint32_t kBarrierWords = kBarrierHeaderWords + kBarrierSlots * kBarrierSlotWords;
static_assert(kBarrierCounts + kMaxMembers <= kBarrierSlotWords, "a count for each member");

class BarrierWords {
 public:
  // One for each session; the words are the process's, and begin anew with each.
  BarrierWords(int rank, int size);

  static void* words();  // memory that stays for good
  static constexpr size_t kBytes = kBarrierWords * sizeof(uint32_t);

  bool EngineAwaits() const { return At(kBarrierEngineAwaits).load() != 0; }

  // An arrival of another member. False: only the engine knows this barrier. Any thread, in signal
  // handlers too. The caller then tells the engine, if that awaits any.
  bool Count(int rank, const Record& record);

  // Tells all others that this member, whose own word counts that already, has come to the barrier
  // in this slot. Returns a bit for each rank that the engine must tell. Any thread that is in no
  // signal handler.
  uint32_t TellOthers(Transport* transport, uint32_t slot, uint32_t view);

  // Waits until all members have come `ticket` times, for `most_ns` at most, or until a member is
  // gone. True: all have. One thread, the program's.
  bool Wait(FaultSink* sink, uint32_t slot, uint32_t ticket, uint64_t most_ns);

  // Lets a thread in Wait look again. Any thread.
  static void RingProgram();

 private:
  static std::atomic<uint32_t>& At(uint32_t word);
  static std::atomic<uint32_t>& SlotAt(uint32_t slot, uint32_t word) {
    return At(kBarrierHeaderWords + slot * kBarrierSlotWords + word);
  }
  // What stands for a barrier on bells; not 0.
  static uint32_t WhichOf(uint32_t key_low, uint32_t key_high);
  // A bit for each member that has not come `ticket` times.
  uint32_t Missing(uint32_t slot, uint32_t ticket) const;
  bool IsBroken() const { return At(kBarrierBroken).load() != 0; }
  bool LookFor(FaultSink* sink, uint32_t slot, uint32_t ticket);

  static constexpr uint64_t kMostSpinNs = 200 * 1000;

  const int rank_;
  const int size_;
  SpinPolicy spin_policy_{kMostSpinNs};
};

}  // namespace pagemesh

#endif  // PAGEMESH_BINDING_BARRIER_WORDS_H_
