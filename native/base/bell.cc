#include "base/bell.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/sealed_memory.h"

namespace pagemesh {
namespace {

struct Own {
  Own() : fd(MakeSealedMemory("pagemesh-bell", sizeof(Bell))) {
    if (fd.valid() && mapping.Map(fd.get(), sizeof(Bell))) {
      bell = reinterpret_cast<Bell*>(mapping.data());
    } else {
      fd.Reset();
    }
  }

  UniqueFd fd;
  Mapping mapping;
  Bell* bell = &alone;
  static Bell alone;  // if memory cannot be shared
};
Bell Own::alone;

// Never destroyed: threads may wait in faults until the process is gone.
Own& TheOwn() {
  static Own* own = new Own();
  return *own;
}

}  // namespace

Bell* OwnBell() { return TheOwn().bell; }
int OwnBellFd() { return TheOwn().fd.get(); }

void Ring(Bell::Slot* slot) {
  slot->rings.fetch_add(1);
  syscall(SYS_futex, &slot->rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool RingIfAsleep(Bell::Slot* slot) {
  if (slot->asleep.load() == 0) return false;
  Ring(slot);
  return true;
}

void WaitForRing(Bell::Slot* slot, uint32_t heard, uint64_t most_ns) {
  const timespec most = {static_cast<time_t>(most_ns / 1000000000),
                         static_cast<long>(most_ns % 1000000000)};
  syscall(SYS_futex, &slot->rings, FUTEX_WAIT, heard, most_ns == 0 ? nullptr : &most, nullptr, 0);
}

void TellArrival(Bell* bell, uint32_t which, int rank) {
  const uint64_t bit = uint64_t{1} << rank;
  uint64_t now = bell->awaited.load();
  do {
    if (now >> 32 != which || (now & bit) == 0) return;
  } while (!bell->awaited.compare_exchange_weak(now, now & ~bit));
  if (static_cast<uint32_t>(now & ~bit) == 0) RingIfAsleep(&bell->barrier);
}

}  // namespace pagemesh
