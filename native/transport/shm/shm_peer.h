// One other member on this host: the rings there and back, its bell, and its regions' memory.
#ifndef PAGEMESH_TRANSPORT_SHM_SHM_PEER_H_
#define PAGEMESH_TRANSPORT_SHM_SHM_PEER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/bell.h"
#include "base/futex_lock.h"
#include "base/sealed_memory.h"
#include "transport/shm/shm_ring.h"
#include "transport/shm/shm_socket.h"
#include "transport/transport.h"

namespace pagemesh {

// Engine thread, unless it says otherwise.
class ShmPeer {
 public:
  explicit ShmPeer(int rank) : rank_(rank) {}
  ShmPeer(const ShmPeer&) = delete;
  ShmPeer& operator=(const ShmPeer&) = delete;

  int rank() const { return rank_; }
  uint8_t token[kShmTokenBytes] = {};  // what it says when it connects

  // Connects to it, and hands it what it needs to send and to be woken. False with errno set.
  bool Connect(const ShmOffer& offer, int own_rank, int own_event_fd);
  // Takes what it has handed over. False with errno set.
  bool Adopt(UniqueFd socket, const UniqueFd& ring, const UniqueFd& bell, UniqueFd event);
  bool is_adopted() const { return bell_ != nullptr; }
  int socket() const { return incoming_.get(); }

  // Memory of regions. All that was ever told stays mapped until the peer goes, because threads may
  // look at it. False with errno set: the peer has said what it must not. Memory that cannot be
  // mapped is an error where it is needed.
  bool ReceiveRegions();
  bool SendRegion(const ShmRegion& region, int fd);
  // Any thread. False if it has not told of such a region.
  bool FindRegion(uint32_t region, PeerMemory* memory) const;

  // What is queued stays unchanged until Flush, which copies pages into the peer's frames.
  void Queue(const Record* record, const uint8_t* page) { queue_.push_back({record, page}); }
  // 0, or why the peer is of no use any more: an errno, or a CloseReason.
  uint32_t Flush(TransportClient* client);
  uint32_t SendNow(TransportClient* client, const Record& record, const uint8_t* page);
  bool has_backlog() const { return !backlog_.empty(); }
  // Wakes whoever has to see what was sent since the last time.
  void RingBell();
  // Any thread, in signal handlers too. False: nothing was sent.
  bool TrySend(const Record& record);
  // The same for an arrival at a barrier, which wakes only who waits for it.
  bool TrySendArrival(const Record& record, uint32_t which, int own_rank);
  // Any thread: whether the peer is done with all notices that copies were given back.
  bool HasSteppedDiscards() const {
    return unsent_discards_.load() == 0 && outgoing_.IsStepped(after_discard_.load());
  }

  // Which thread waits for a page, by its request. A hint.
  void KeepSlot(const Record& request);

  // receive_lock orders the engine and faulting threads.
  FutexLock receive_lock;
  RingReceiver incoming;
  // The sender waits for room: tells it.
  void TellOfRoom() { WakeEngine(); }

 private:
  struct Queued {
    const Record* record;
    const uint8_t* page;
  };
  struct Kept {
    Record record;
    std::vector<uint8_t> page;
  };
  struct Hint {
    uint32_t region = 0, page = 0, slot = kBellSlots;
  };
  struct Memory {
    Mapping mapping;
    size_t frames_bytes = 0;
  };

  static constexpr uint32_t kMaxRegionId = 1023;
  static constexpr size_t kMaxMappings = 4096;
  static constexpr uint32_t kHints = 256;
  static constexpr uint32_t kMaxSlotsToRing = 64;

  uint32_t FindFrame(TransportClient* client, const Record& record, uint8_t** frame);
  bool Place(const Record& record, const uint8_t* page, uint8_t* frame);
  void Keep(const Record& record, const uint8_t* page);
  uint32_t FlushBacklog(TransportClient* client);
  void NoteSent(const Record& record);
  Hint& HintOf(const Record& record) { return hints_[(record.page * 31 + record.region) % kHints]; }
  void WakeEngine();
  bool RingProgram();

  const int rank_;
  UniqueFd outgoing_socket_, incoming_;  // we speak on the one and hear on the other
  UniqueFd event_fd_;                    // wakes its engine
  Mapping bell_mapping_;
  Bell* bell_ = nullptr;
  std::vector<std::unique_ptr<Memory>> memories_;
  int map_error_ = 0;
  std::atomic<const Memory*> regions_[kMaxRegionId + 1] = {};
  std::deque<std::pair<ShmRegion, UniqueFd>> unsent_regions_;

  FutexLock send_lock_;  // orders the engine and faulting threads
  RingSender outgoing_;  // send_lock_
  std::vector<Queued> queue_;
  std::deque<Kept> backlog_;                  // changed under send_lock_; goes before queue_
  std::atomic<bool> backlogged_{false};       // there is a backlog
  std::atomic<uint32_t> unsent_discards_{0};  // in queue_ or backlog_
  std::atomic<uint32_t> after_discard_{0};    // number of the record after the last Discard
  Hint hints_[kHints];
  uint32_t slots_to_ring_[kMaxSlotsToRing];
  uint32_t slot_count_ = 0;
  bool engine_to_wake_ = false;
  bool program_to_ring_ = false;
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_SHM_SHM_PEER_H_
