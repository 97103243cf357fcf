// Records from one member to another on the same host: a ring in memory that both map, made by the
// sender. Pages do not go through it: the sender copies them into the receiver's frames first.
#ifndef PAGEMESH_TRANSPORT_SHM_SHM_RING_H_
#define PAGEMESH_TRANSPORT_SHM_SHM_RING_H_

#include <atomic>
#include <cstdint>

#include "base/sealed_memory.h"
#include "transport/wire.h"

namespace pagemesh {

constexpr uint32_t kRingRecords = 1024;
static_assert((kRingRecords & (kRingRecords - 1)) == 0, "positions are masked");

// Counts of records, which wrap around: how many were ever sent, and so on.
struct RingMemory {
  alignas(64) std::atomic<uint32_t> sent;   // the sender writes it
  alignas(64) std::atomic<uint32_t> taken;  // the receiver writes it …
  std::atomic<uint32_t> stepped;            // … and of these, how many its engine is done with
  std::atomic<uint32_t> sender_waits;       // 1: the sender wants to hear of room
  alignas(64) Record records[kRingRecords];
};

// Callers see to it that one thread at a time sends.
class RingSender {
 public:
  bool Make();  // false with errno set
  int fd() const { return fd_.get(); }

  // False if there is no room.
  bool Send(const Record& record);
  // Asks the receiver for a ring of the bell when it has made room; true if there is some already.
  bool AwaitRoom();
  // The number of the next record. Any thread.
  uint32_t next() const { return memory()->sent.load(std::memory_order_relaxed); }
  // Whether the receiver's engine is done with all records below this number. Any thread.
  bool IsStepped(uint32_t number) const {
    return static_cast<int32_t>(memory()->stepped.load(std::memory_order_acquire) - number) >= 0;
  }
  bool HasRoom() const;
  bool IsHalfFull() const;

 private:
  RingMemory* memory() const { return reinterpret_cast<RingMemory*>(mapping_.data()); }

  UniqueFd fd_;
  Mapping mapping_;
};

// Callers see to it that one thread at a time takes. What is in the memory is a peer's.
class RingReceiver {
 public:
  enum class Found { kNothing, kRecord, kNonsense };

  bool Map(int fd);  // false with errno set
  bool is_mapped() const { return mapping_.data() != nullptr; }

  // Copies the next record, and leaves it there.
  Found Peek(Record* record) const;
  // True if the sender waits for room.
  bool Take();
  // The engine is done with what was taken.
  void MarkStepped() { memory()->stepped.store(taken_, std::memory_order_release); }
  // Any thread; may be out of date.
  bool IsEmpty() const {
    return memory()->sent.load(std::memory_order_acquire) == taken_.load(std::memory_order_relaxed);
  }

 private:
  RingMemory* memory() const { return reinterpret_cast<RingMemory*>(mapping_.data()); }

  Mapping mapping_;
  std::atomic<uint32_t> taken_{0};  // what the memory says of it may be changed by the peer
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_SHM_SHM_RING_H_
