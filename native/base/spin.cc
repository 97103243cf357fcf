#include "base/spin.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

namespace pagemesh {
namespace {

constexpr uint32_t kRoundsBetweenYields = 4;
// A thread of the kernel may take so long; who takes longer has a slice of the scheduler's.
constexpr uint64_t kDisplacedNs = 1000 * 1000;

#ifdef PAGEMESH_NEVER_SPIN  // where instructions are counted, which must not depend on the time
const bool has_several_cores = false;
#else
const bool has_several_cores = sysconf(_SC_NPROCESSORS_ONLN) > 1;
#endif

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000U + static_cast<uint64_t>(now.tv_nsec);
}

bool MaySpin() { return has_several_cores; }

uint64_t SpinPolicy::Begin() {
  if (!has_several_cores) return 0;
  if (trust_.load(std::memory_order_relaxed) > 0) return most_ns_;
  const uint32_t one_in = try_one_in_.load(std::memory_order_relaxed);
  return skipped_.fetch_add(1, std::memory_order_relaxed) % one_in == 0 ? most_ns_ : 0;
}

void SpinPolicy::OnFound() {
  trust_.store(kMostTrust, std::memory_order_relaxed);
  try_one_in_.store(kTryOneIn, std::memory_order_relaxed);
}

void SpinPolicy::OnDisplaced() {
  trust_.store(0, std::memory_order_relaxed);
  const uint32_t one_in = try_one_in_.load(std::memory_order_relaxed);
  if (one_in < kTryOneInAtLeast) try_one_in_.store(2 * one_in, std::memory_order_relaxed);
}

void SpinPolicy::OnNothing() {
  const uint32_t trust = trust_.load(std::memory_order_relaxed);
  if (trust > 0) trust_.store(trust - 1, std::memory_order_relaxed);
}

Spin::Spin(SpinPolicy* policy) : policy_(policy), budget_ns_(policy->Begin()) {
  if (budget_ns_ > 0) start_ns_ = last_ns_ = NowNs();
}

bool Spin::GoOn() {
  if (budget_ns_ == 0) return false;
  Relax();
  if (++rounds_ % kRoundsBetweenYields != 0) return true;
  // Whoever else wants this core goes first: it may be what carries the answer (SoftRoCE does its
  // work in a thread of the kernel).
  sched_yield();
  const uint64_t now_ns = NowNs();
  const uint64_t gap_ns = now_ns - last_ns_;
  last_ns_ = now_ns;
  if (gap_ns >= kDisplacedNs) {
    policy_->OnDisplaced();
    return false;
  }
  if (now_ns - start_ns_ < budget_ns_) return true;
  policy_->OnNothing();
  return false;
}

void Spin::Found() {
  if (budget_ns_ > 0) policy_->OnFound();
}

}  // namespace pagemesh
