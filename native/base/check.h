// Checks of our own invariants. They stay in release builds: a broken invariant in shared memory
// spreads to other members, so the process says what it saw and aborts.
#ifndef PAGEMESH_BASE_CHECK_H_
#define PAGEMESH_BASE_CHECK_H_

namespace pagemesh {

// Prints `file:line: check failed: what (a=…, b=…)` to stderr and aborts. Async-signal-safe.
[[noreturn]] void CheckFailed(const char* file, int line, const char* what, long long a,
                              long long b);

}  // namespace pagemesh

#define PM_CHECK(condition) PM_CHECK_STATE(condition, 0, 0)

// The same, and prints two numbers that tell the state.
#define PM_CHECK_STATE(condition, a, b)                                                  \
  do {                                                                                   \
    if (__builtin_expect(!(condition), 0)) {                                             \
      ::pagemesh::CheckFailed(__FILE__, __LINE__, #condition, static_cast<long long>(a), \
                              static_cast<long long>(b));                                \
    }                                                                                    \
  } while (0)

#endif  // PAGEMESH_BASE_CHECK_H_
