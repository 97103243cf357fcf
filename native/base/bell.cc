#include "base/bell.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
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

void WaitForRing(Bell::Slot* slot, uint32_t heard) {
  syscall(SYS_futex, &slot->rings, FUTEX_WAIT, heard, nullptr, nullptr, 0);
}

}  // namespace pagemesh
