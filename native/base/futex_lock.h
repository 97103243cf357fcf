// A mutual exclusion lock that may be taken inside a signal handler: no allocation, no TLS, no
// priority of its own. The holder must not touch protected pages.
#ifndef PAGEMESH_BASE_FUTEX_LOCK_H_
#define PAGEMESH_BASE_FUTEX_LOCK_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace pagemesh {

inline long Futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation | FUTEX_PRIVATE_FLAG,
                 value, nullptr, nullptr, 0);
}

// Three states after U. Drepper, "Futexes Are Tricky" (2011), section 6.
class FutexLock {
 public:
  FutexLock() = default;
  FutexLock(const FutexLock&) = delete;
  FutexLock& operator=(const FutexLock&) = delete;

  bool TryLock() {
    uint32_t expected = kFree;
    return word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire);
  }
  void Lock() {
    if (TryLock()) return;
    while (word_.exchange(kContended, std::memory_order_acquire) != kFree) {
      Futex(&word_, FUTEX_WAIT, kContended);
    }
  }
  void Unlock() {
    if (word_.exchange(kFree, std::memory_order_release) == kContended) {
      Futex(&word_, FUTEX_WAKE, 1);
    }
  }

 private:
  static constexpr uint32_t kFree = 0;
  static constexpr uint32_t kHeld = 1;
  static constexpr uint32_t kContended = 2;
  std::atomic<uint32_t> word_{kFree};
};

class FutexGuard {
 public:
  explicit FutexGuard(FutexLock& lock) : lock_(lock) { lock_.Lock(); }
  ~FutexGuard() { lock_.Unlock(); }
  FutexGuard(const FutexGuard&) = delete;
  FutexGuard& operator=(const FutexGuard&) = delete;

 private:
  FutexLock& lock_;
};

}  // namespace pagemesh

#endif  // PAGEMESH_BASE_FUTEX_LOCK_H_
