// Which signals a thread may put off.
#ifndef PAGEMESH_BASE_SIGNALS_H_
#define PAGEMESH_BASE_SIGNALS_H_

#include <signal.h>

#include <initializer_list>

namespace pagemesh {

// All but those that the thread itself brings about by what it does: they cannot wait.
inline sigset_t SignalsThatCanWait() {
  sigset_t signals;
  sigfillset(&signals);
  for (const int synchronous : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&signals, synchronous);
  }
  return signals;
}

}  // namespace pagemesh

#endif  // PAGEMESH_BASE_SIGNALS_H_
