#include "binding/barrier_words.h"

#include <signal.h>

#include <algorithm>

#include "base/bell.h"
#include "base/signals.h"

namespace pagemesh {
namespace {

alignas(64) std::atomic<uint32_t> the_words[kBarrierWords];
static_assert(sizeof(the_words) == BarrierWords::kBytes, "what TypeScript sees");

// A handler of the user's may touch shared memory. Its thread must not hold what the engine needs
// meanwhile, as the locks of a transport: so no handler runs while this lives.
class SignalsOff {
 public:
  SignalsOff() { Resume(); }
  ~SignalsOff() { Pause(); }
  SignalsOff(const SignalsOff&) = delete;
  SignalsOff& operator=(const SignalsOff&) = delete;

  void Pause() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  void Resume() {
    const sigset_t all = SignalsThatCanWait();
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }

 private:
  sigset_t before_;
};

}  // namespace

BarrierWords::BarrierWords(int rank, int size) : rank_(rank), size_(size) {
  for (std::atomic<uint32_t>& word : the_words) word.store(0, std::memory_order_relaxed);
  Bell* bell = OwnBell();
  bell->awaited.store(0);
  bell->engine_awaits.store(0);
}

void* BarrierWords::words() { return the_words; }

std::atomic<uint32_t>& BarrierWords::At(uint32_t word) { return the_words[word]; }

uint32_t BarrierWords::WhichOf(uint32_t key_low, uint32_t key_high) {
  return (key_low ^ (key_high * 0x9e3779b1U)) | 1;
}

uint32_t BarrierWords::Missing(uint32_t slot, uint32_t ticket) const {
  uint32_t missing = 0;
  for (int rank = 0; rank < size_; rank++) {
    const uint32_t count = SlotAt(slot, kBarrierCounts + static_cast<uint32_t>(rank)).load();
    if (static_cast<int32_t>(count - ticket) < 0) missing |= 1U << rank;
  }
  return missing;
}

bool BarrierWords::Count(int rank, const Record& record) {
  if (record.payload_bytes != 0 || rank < 0 || rank >= size_ || rank == rank_) return false;
  const uint32_t key_low = record.words[0], key_high = record.words[1] | kBarrierBound;
  const uint32_t used = std::min(At(kBarrierSlotsUsed).load(), kBarrierSlots);
  for (uint32_t slot = 0; slot < used; slot++) {
    if (SlotAt(slot, kBarrierKeyLow).load(std::memory_order_relaxed) != key_low ||
        SlotAt(slot, kBarrierKeyHigh).load(std::memory_order_relaxed) != key_high) {
      continue;
    }
    SlotAt(slot, kBarrierCounts + static_cast<uint32_t>(rank)).fetch_add(1);
    TellArrival(OwnBell(), WhichOf(key_low, record.words[1]), rank);
    return true;
  }
  return false;
}

uint32_t BarrierWords::TellOthers(Transport* transport, uint32_t slot, uint32_t view) {
  const SignalsOff signals_off;
  Record record = {};
  record.kind = kKindBarrierArrive;
  record.view = view;
  record.words[0] = SlotAt(slot, kBarrierKeyLow).load();
  record.words[1] = SlotAt(slot, kBarrierKeyHigh).load() & ~kBarrierBound;
  const uint32_t which = WhichOf(record.words[0], record.words[1]);
  uint32_t untold = 0;
  // Each begins with another one, so that nobody is the last to hear of all.
  for (int step = 1; step < size_; step++) {
    const int to = (rank_ + step) % size_;
    if (!transport->TrySendArrival(to, record, which)) untold |= 1U << to;
  }
  return untold;
}

// Looks for arrivals for as long as the core has nothing better to do.
bool BarrierWords::LookFor(FaultSink* sink, uint32_t slot, uint32_t ticket) {
  Spin spin(&spin_policy_);
  do {
    sink->PollAnswers();
    if (Missing(slot, ticket) == 0) {
      spin.Found();
      return true;
    }
  } while (!IsBroken() && spin.GoOn());
  return false;
}

bool BarrierWords::Wait(FaultSink* sink, uint32_t slot, uint32_t ticket, uint64_t most_ns) {
  SignalsOff signals_off;
  if (LookFor(sink, slot, ticket)) return true;
  Bell* bell = OwnBell();
  const uint64_t key = WhichOf(SlotAt(slot, kBarrierKeyLow).load(),
                               SlotAt(slot, kBarrierKeyHigh).load() & ~kBarrierBound);
  const uint64_t until_ns = NowNs() + most_ns;
  bell->barrier.asleep.store(1);
  uint32_t missing;
  while ((missing = Missing(slot, ticket)) != 0 && !IsBroken()) {
    const uint32_t heard = bell->barrier.rings.load();
    bell->awaited.store(key << 32 | missing);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    // Whoever comes from now on rings; who came before is in what this takes, or counted already.
    sink->WatchAnswers();
    if (Missing(slot, ticket) != missing || IsBroken()) continue;
    const uint64_t now_ns = NowNs();
    if (now_ns >= until_ns) break;
    signals_off.Pause();
    WaitForRing(&bell->barrier, heard, until_ns - now_ns);
    signals_off.Resume();
  }
  bell->barrier.asleep.store(0);
  bell->awaited.store(0);
  return missing == 0;
}

void BarrierWords::RingProgram() { RingIfAsleep(&OwnBell()->barrier); }

}  // namespace pagemesh
