#include "transport/shm/shm_ring.h"

#include <errno.h>

namespace pagemesh {

bool RingSender::Make() {
  fd_ = MakeSealedMemory("pagemesh-ring", sizeof(RingMemory));
  return fd_.valid() && mapping_.Map(fd_.get(), sizeof(RingMemory));
}

// A receiver that lies about what it has taken loses records, or gets none.
bool RingSender::HasRoom() const {
  return next() - memory()->taken.load(std::memory_order_acquire) < kRingRecords;
}

bool RingSender::IsHalfFull() const {
  return next() - memory()->taken.load(std::memory_order_acquire) > kRingRecords / 2;
}

bool RingSender::Send(const Record& record) {
  if (!HasRoom()) return false;
  const uint32_t number = next();
  memory()->records[number & (kRingRecords - 1)] = record;
  memory()->sent.store(number + 1, std::memory_order_release);
  return true;
}

bool RingSender::AwaitRoom() {
  memory()->sender_waits.store(1);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return HasRoom();
}

bool RingReceiver::Map(int fd) {
  if (!IsSealedMemory(fd, sizeof(RingMemory))) {
    errno = EPROTO;
    return false;
  }
  return mapping_.Map(fd, sizeof(RingMemory));
}

RingReceiver::Found RingReceiver::Peek(Record* record) const {
  const uint32_t taken = taken_.load(std::memory_order_relaxed);
  const uint32_t ahead = memory()->sent.load(std::memory_order_acquire) - taken;
  if (ahead == 0) return Found::kNothing;
  if (ahead > kRingRecords) return Found::kNonsense;
  *record = memory()->records[taken & (kRingRecords - 1)];
  return Found::kRecord;
}

bool RingReceiver::Take() {
  const uint32_t taken = taken_.load(std::memory_order_relaxed) + 1;
  taken_.store(taken, std::memory_order_relaxed);
  memory()->taken.store(taken, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return memory()->sender_waits.load(std::memory_order_relaxed) != 0 &&
         memory()->sender_waits.exchange(0) != 0;
}

}  // namespace pagemesh
