// The fault back end that works everywhere: a SIGSEGV handler, chained to the one that was there.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>

#include "base/bell.h"
#include "base/check.h"
#include "base/futex_lock.h"
#include "memory/back_end.h"
#include "memory/fault.h"

namespace pagemesh {
namespace {

struct sigaction previous_action;  // set before the handler can run
FutexLock install_lock;
bool installed = false;  // install_lock

enum class Touch { kRead, kWrite, kExecute };

#if defined(__x86_64__)
// Intel SDM volume 3A, 4.7: bit 1 of the page fault's error code tells a write, bit 4 a fetch.
Touch TouchOf(const ucontext_t* context) {
  const greg_t error = context->uc_mcontext.gregs[REG_ERR];
  if ((error & 0x10) != 0) return Touch::kExecute;
  return (error & 0x2) != 0 ? Touch::kWrite : Touch::kRead;
}
#elif defined(__aarch64__)
// Linux hands out ESR_EL1 in a record of the signal frame. Arm ARM, D17.2.37: the exception class
// in bits 31:26 (0x20 and 0x21 are instruction aborts), WnR in bit 6, and CM in bit 8 marks cache
// maintenance, which sets WnR but needs no more than read access.
Touch TouchOf(const ucontext_t* context) {
  constexpr uint32_t kEsrMagic = 0x45535201;
  const uint8_t* at = reinterpret_cast<const uint8_t*>(context->uc_mcontext.__reserved);
  const uint8_t* end = at + sizeof(context->uc_mcontext.__reserved);
  while (at + 2 * sizeof(uint32_t) <= end) {
    uint32_t magic = 0, size = 0;
    memcpy(&magic, at, sizeof(magic));
    memcpy(&size, at + sizeof(magic), sizeof(size));
    if (magic == 0 || size < 2 * sizeof(uint32_t)) break;
    if (magic == kEsrMagic) {
      uint64_t esr = 0;
      memcpy(&esr, at + 2 * sizeof(uint32_t), sizeof(esr));
      const uint64_t exception_class = (esr >> 26) & 0x3f;
      if (exception_class == 0x20 || exception_class == 0x21) return Touch::kExecute;
      return (esr & (1U << 6)) != 0 && (esr & (1U << 8)) == 0 ? Touch::kWrite : Touch::kRead;
    }
    at += size;
  }
  return Touch::kRead;
}
#else
#error "pagemesh knows how to tell reads from writes on x86-64 and aarch64 only"
#endif

// Hands the signal to whoever had it before us: V8's WebAssembly trap handler, or the default,
// which ends the process as if pagemesh were not there.
void Chain(int signal, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
    return;
  }
  if (previous_action.sa_handler == SIG_IGN && info->si_code <= 0) return;  // sent by kill()
  if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    struct sigaction by_default;
    memset(&by_default, 0, sizeof(by_default));
    by_default.sa_handler = SIG_DFL;
    sigaction(signal, &by_default, nullptr);
    if (info->si_code <= 0) raise(signal);  // not a touch: returning would not bring it back
    return;
  }
  previous_action.sa_handler(signal);
}

void OnSegv(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  bool served = false;
  if (info->si_code > 0) {  // by the kernel, not by kill()
    const Touch touch = TouchOf(static_cast<ucontext_t*>(context));
    if (touch != Touch::kExecute) {
      served = ServeFault(reinterpret_cast<uintptr_t>(info->si_addr),
                          touch == Touch::kWrite ? Access::kWrite : Access::kRead);
    }
  }
  if (!served) Chain(signal, info, context);
  errno = saved_errno;
}

// Installs the handler, once a process; it stays, and chains to the one before it. Returns 0 or
// errno.
int InstallHandler() {
  OwnBell();  // made here, because no handler may make it
  FutexGuard guard(install_lock);
  if (installed) return 0;
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_sigaction = OnSegv;
  // Every signal that can wait does: a handler of the user's that touched shared memory inside
  // ours would nest. The alternate stack is used where a thread has one.
  sigfillset(&action.sa_mask);
  for (const int synchronous : {SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&action.sa_mask, synchronous);
  }
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  if (sigaction(SIGSEGV, nullptr, &previous_action) != 0) return errno;
  if (sigaction(SIGSEGV, &action, nullptr) != 0) return errno;
  installed = true;
  return 0;
}

class SigsegvBackEnd final : public FaultBackEnd {
 public:
  SigsegvBackEnd() : FaultBackEnd(true) {}

  bool Guard(const GuardedPages&) override { return true; }
  void Permit(const GuardedPages& pages, int protection) override {
    const int failed = mprotect(pages.application, pages.bytes(), protection);
    PM_CHECK_STATE(failed == 0, errno, pages.count);
    memset(pages.enforced, protection, pages.count);
  }
  void Unguard(const GuardedPages& all) override { Permit(all, PROT_READ | PROT_WRITE); }
  void Attend() override {}
  void Retry(uintptr_t) override {}
};

}  // namespace

FaultBackEnd* UseSigsegv() {
  static SigsegvBackEnd back_end;
  const int failed = InstallHandler();
  if (failed == 0) return &back_end;
  errno = failed;
  return nullptr;
}

}  // namespace pagemesh
