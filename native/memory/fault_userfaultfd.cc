// The fault back end that serves system calls too: userfaultfd. The application mapping is readable
// and writable for the kernel's books; what a page permits is said by its page table entry:
//   none        no entry, so that a touch is a minor fault (UFFDIO_REGISTER_MODE_MINOR)
//   read-only   an entry that is write-protected (UFFDIO_REGISTER_MODE_WP)
//   read-write  an entry
// A frame that nobody has touched yet would be a missing page, not a minor fault; that is heard of
// as well, and it is made before it is mapped. The thread that touches sleeps in the kernel, and a
// thread of ours serves it. man 2 ioctl_userfaultfd; Documentation/admin-guide/mm/userfaultfd.rst.
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "base/bell.h"
#include "base/check.h"
#include "base/futex_lock.h"
#include "base/signals.h"
#include "base/spin.h"
#include "base/unique_fd.h"
#include "memory/back_end.h"
#include "memory/fault.h"

// Of Linux 6.4, which is newer than the headers on many machines.
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP (static_cast<uint64_t>(1) << 1)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

namespace pagemesh {
namespace {

constexpr size_t kMmuPageBytes = 4096;
constexpr uint32_t kMostRaised = 64;  // a longer run is raised as it is touched, piece by piece
constexpr int kMostMessages = 16;
constexpr uint64_t kMostSpinNs = 200 * 1000;
constexpr uint64_t kNeeded = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
                             UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                             UFFD_FEATURE_THREAD_ID;
// What says that the kernel has UFFDIO_CONTINUE_MODE_WP, which came with it.
constexpr uint64_t kNeededToBeThere = kNeeded | UFFD_FEATURE_WP_UNPOPULATED;

int OpenDescriptor() {
  const int flags = O_CLOEXEC | O_NONBLOCK;
  const long by_call = syscall(SYS_userfaultfd, flags);
  if (by_call >= 0 || errno != EPERM) return static_cast<int>(by_call);
  const UniqueFd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  const int by_device = device.valid() ? ioctl(device.get(), USERFAULTFD_IOC_NEW, flags) : -1;
  if (by_device < 0) errno = EPERM;
  return by_device;
}

// Returns 0 or errno; `*features` are those that the kernel has.
int Handshake(int fd, uint64_t wanted, uint64_t* features) {
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = wanted;
  if (ioctl(fd, UFFDIO_API, &api) != 0) return errno;
  *features = api.features;
  return 0;
}

class UserfaultfdBackEnd final : public FaultBackEnd {
 public:
  UserfaultfdBackEnd() : FaultBackEnd(false) {}

  // 0 or errno.
  int Start() {
    FutexGuard guard(start_lock_);
    if (started_) return 0;
    uint64_t there = 0;
    {
      const UniqueFd probe(OpenDescriptor());
      if (!probe.valid()) return errno;
      if (Handshake(probe.get(), 0, &there) != 0) return ENOTSUP;
    }
    if ((there & kNeededToBeThere) != kNeededToBeThere) return ENOTSUP;
    fd_.Reset(OpenDescriptor());
    if (!fd_.valid()) return errno;
    const int refused = Handshake(fd_.get(), kNeeded, &there);
    if (refused != 0) return refused;
    bell_fd_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!bell_fd_.valid()) return errno;
    OwnBell();
    const int failed = StartThread();
    started_ = failed == 0;
    return failed;
  }

  bool Guard(const GuardedPages& all) override {
    uffdio_register request = {};
    request.range = RangeOf(all);
    request.mode =
        UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
    if (ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0) return false;
    // A child of fork has no part in the mesh, and would see frames that nobody keeps fresh.
    if (madvise(all.application, all.bytes(), MADV_DONTFORK) != 0) return false;
    return mprotect(all.application, all.bytes(), PROT_READ | PROT_WRITE) == 0;
  }

  void Permit(const GuardedPages& pages, int protection) override {
    for (uint32_t first = 0; first < pages.count;) {
      uint32_t end = first + 1;
      while (end < pages.count && pages.enforced[end] == pages.enforced[first]) end++;
      PermitAlike(Part(pages, first, end - first), protection);
      first = end;
    }
  }

  void Unguard(const GuardedPages& all) override {
    uffdio_range range = RangeOf(all);
    const int failed = ioctl(fd_.get(), UFFDIO_UNREGISTER, &range);
    PM_CHECK_STATE(failed == 0, errno, all.count);
    memset(all.enforced, PROT_READ | PROT_WRITE, all.count);
    WakeRange(range);
  }

  void Attend() override {
    attend_.store(true);
    if (!asleep_.load()) return;
    const uint64_t one = 1;
    const ssize_t ignored = write(bell_fd_.get(), &one, sizeof(one));
    (void)ignored;
  }

  void Retry(uintptr_t address) override {
    const uint64_t start = address & ~static_cast<uint64_t>(kMmuPageBytes - 1);
    WakeRange({start, kMmuPageBytes});
  }

 private:
  static GuardedPages Part(const GuardedPages& pages, uint32_t first, uint32_t count) {
    const size_t offset = first * pages.page_bytes;
    return {pages.application + offset, pages.frame + offset, pages.page_bytes, count,
            pages.enforced + first};
  }

  static uffdio_range RangeOf(const GuardedPages& pages) {
    return {reinterpret_cast<uint64_t>(pages.application), pages.bytes()};
  }

  void WakeRange(uffdio_range range) { ioctl(fd_.get(), UFFDIO_WAKE, &range); }

  // Pages for which the same is enforced. Raising what is raised already is asked for when a page
  // was touched all the same: the kernel drops entries when it is short of memory.
  void PermitAlike(const GuardedPages& pages, int protection) {
    const int now = pages.enforced[0];
    if (protection == PROT_NONE) {
      if (now == PROT_NONE) return;
      const int failed = madvise(pages.application, pages.bytes(), MADV_DONTNEED);
      PM_CHECK_STATE(failed == 0, errno, pages.count);
    } else if (now == PROT_NONE || now == protection) {
      if (now == PROT_NONE && pages.count > kMostRaised) return;
      Map(pages, protection);
    } else {
      WriteProtect(pages, protection == PROT_READ);
    }
    memset(pages.enforced, protection, pages.count);
  }

  void WriteProtect(const GuardedPages& pages, bool protect) {
    uffdio_writeprotect request = {};
    request.range = RangeOf(pages);
    request.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
    while (ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
      PM_CHECK_STATE(errno == EAGAIN, errno, pages.count);
    }
  }

  void Map(const GuardedPages& pages, int protection) {
    int tries = 0;
    for (size_t at = 0; at < pages.bytes();) {
      uffdio_continue request = {};
      request.range = {reinterpret_cast<uint64_t>(pages.application) + at, pages.bytes() - at};
      request.mode = protection == PROT_READ ? UFFDIO_CONTINUE_MODE_WP : 0;
      if (ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0) return;
      const int error = errno;
      if (request.mapped > 0) {
        at += static_cast<size_t>(request.mapped);
        tries = 0;
      } else if (error == EEXIST) {  // it is there: only wake who waits for it
        WakeRange({request.range.start, kMmuPageBytes});
        at += kMmuPageBytes;
      } else if (error == EFAULT) {  // there is no frame yet
        PM_CHECK_STATE(++tries < kMostTries, error, pages.count);
        for (size_t hole = at; hole < pages.bytes(); hole += kMmuPageBytes) {
          static_cast<void>(*static_cast<const volatile uint8_t*>(pages.frame + hole));
        }
      } else {
        PM_CHECK_STATE(error == EAGAIN, error, pages.count);
      }
    }
  }

  int StartThread() {
    // It runs no handler of the user's: one that touched shared memory would wait for itself.
    const sigset_t all = SignalsThatCanWait();
    sigset_t before;
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_t thread;
    const auto run = [](void* self) -> void* {
      static_cast<UserfaultfdBackEnd*>(self)->Serve();
      return nullptr;
    };
    const int failed = pthread_create(&thread, nullptr, run, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (failed != 0) return failed;
    pthread_setname_np(thread, "pagemesh faults");
    pthread_detach(thread);
    return 0;
  }

  void Serve() {
    prctl(PR_SET_TIMERSLACK, 1UL);  // it sleeps for microseconds
    for (;;) {
      if (ServeWhatIsThere()) continue;
      Spin spin(&spin_policy_);
      bool found = false;
      while (!found && spin.GoOn()) {
        ReleaseTouched();
        found = ServeWhatIsThere();
      }
      if (found) {
        spin.Found();
        continue;
      }
      Sleep();
    }
  }

  // Whether anything was.
  bool ServeWhatIsThere() {
    const bool attend = attend_.load() && attend_.exchange(false);
    if (attend) ServeWokenSleepers();
    uffd_msg messages[kMostMessages];
    const ssize_t bytes = read(fd_.get(), messages, sizeof(messages));
    if (bytes < 0) {
      PM_CHECK_STATE(errno == EAGAIN || errno == EINTR, errno, 0);
      return attend;
    }
    for (size_t i = 0; i < static_cast<size_t>(bytes) / sizeof(uffd_msg); i++) {
      if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
      const auto& fault = messages[i].arg.pagefault;
      const bool writes = (fault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP)) != 0;
      ServeSleeper(this, fault.address, writes ? Access::kWrite : Access::kRead, fault.feat.ptid);
    }
    return true;
  }

  void Sleep() {
    const int timeout_us = ReleaseTouched();
    const timespec timeout = {0, timeout_us * 1000L};
    asleep_.store(true);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!attend_.load()) {
      pollfd both[2] = {{fd_.get(), POLLIN, 0}, {bell_fd_.get(), POLLIN, 0}};
      ppoll(both, 2, timeout_us < 0 ? nullptr : &timeout, nullptr);
    }
    asleep_.store(false);
    uint64_t value;
    const ssize_t ignored = read(bell_fd_.get(), &value, sizeof(value));
    (void)ignored;
  }

  static constexpr int kMostTries = 8;
  FutexLock start_lock_;
  bool started_ = false;  // start_lock_
  UniqueFd fd_;
  UniqueFd bell_fd_;
  std::atomic<bool> attend_{false};
  std::atomic<bool> asleep_{false};  // the thread is in poll, or about to be
  SpinPolicy spin_policy_{kMostSpinNs};
};

}  // namespace

FaultBackEnd* UseUserfaultfd() {
  static auto* back_end = new UserfaultfdBackEnd();  // its thread runs to the end of the process
  const int failed = back_end->Start();
  if (failed == 0) return back_end;
  errno = failed;
  return nullptr;
}

}  // namespace pagemesh
