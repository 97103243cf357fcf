#include "base/stamps.h"

#ifdef PAGEMESH_STAMPS

#include <sched.h>

#include <memory>

#include "base/futex_lock.h"
#include "base/spin.h"

namespace pagemesh {
namespace {

struct Slot {
  std::atomic<uint64_t> ns{0};  // written last; 0: nothing is here
  Point point;
  uint32_t region, page;
};

FutexLock take_lock;
// Changed under take_lock while no stamps are kept and there are no keepers.
std::unique_ptr<Slot[]> slots;
uint32_t slot_count = 0;
std::atomic<uint32_t> next_slot{0};
std::atomic<uint32_t> keepers{0};  // threads that may use the slots

}  // namespace

std::atomic<bool> stamps_are_kept{false};

void KeepStamp(Point point, uint32_t region, uint32_t page) {
  const uint64_t now_ns = NowNs();
  keepers.fetch_add(1);
  if (stamps_are_kept.load()) {
    const uint32_t at = next_slot.fetch_add(1);
    if (at < slot_count) {
      Slot& slot = slots[at];
      slot.point = point;
      slot.region = region;
      slot.page = page;
      slot.ns.store(now_ns, std::memory_order_release);
    }
  }
  keepers.fetch_sub(1);
}

std::vector<KeptStamp> TakeStamps(uint32_t room) {
  FutexGuard guard(take_lock);
  stamps_are_kept.store(false);
  while (keepers.load() > 0) sched_yield();
  std::vector<KeptStamp> taken;
  const uint32_t count = next_slot.load() < slot_count ? next_slot.load() : slot_count;
  taken.reserve(count);
  for (uint32_t i = 0; i < count; i++) {
    taken.push_back({slots[i].ns.load(), slots[i].point, slots[i].region, slots[i].page});
  }
  slot_count = room < kMostStamps ? room : kMostStamps;
  slots.reset(slot_count > 0 ? new Slot[slot_count]() : nullptr);
  next_slot.store(0);
  stamps_are_kept.store(slot_count > 0);
  return taken;
}

}  // namespace pagemesh

#endif  // PAGEMESH_STAMPS
