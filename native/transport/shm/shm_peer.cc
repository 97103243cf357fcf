#include "transport/shm/shm_peer.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <utility>

#include "base/check.h"
#include "base/stamps.h"

namespace pagemesh {
namespace {

// The last word on a request: nothing is to come after it.
bool IsLastWord(const Record& record) {
  const bool grants =
      record.kind == kKindData || record.kind == kKindDataExclusive || record.kind == kKindGrant;
  return grants && record.words[0] == 0 && record.words[1] == 0;
}

}  // namespace

bool ShmPeer::Connect(const ShmOffer& offer, int own_rank, int own_event_fd) {
  if (OwnBellFd() < 0) {
    errno = ENOMEM;
    return false;
  }
  if (!outgoing_.Make()) return false;
  outgoing_socket_ = ConnectShm(offer.name);
  if (!outgoing_socket_.valid()) return false;
  ShmHello hello = {};
  hello.version = kShmVersion;
  hello.rank = static_cast<uint32_t>(own_rank);
  memcpy(hello.token, offer.token, sizeof(hello.token));
  const int fds[] = {outgoing_.fd(), OwnBellFd(), own_event_fd};
  return SendWithFds(outgoing_socket_.get(), &hello, sizeof(hello), fds, 3);
}

bool ShmPeer::Adopt(UniqueFd socket, const UniqueFd& ring, const UniqueFd& bell, UniqueFd event) {
  if (!IsSealedMemory(bell.get(), sizeof(Bell))) {
    errno = EPROTO;
    return false;
  }
  if (!incoming.Map(ring.get()) || !bell_mapping_.Map(bell.get(), sizeof(Bell))) return false;
  incoming_ = std::move(socket);
  event_fd_ = std::move(event);
  bell_ = reinterpret_cast<Bell*>(bell_mapping_.data());
  return true;
}

bool ShmPeer::ReceiveRegions() {
  for (;;) {
    ShmRegion told;
    UniqueFd fd;
    if (!ReceiveWithFds(incoming_.get(), &told, sizeof(told), &fd, 1)) return errno == EAGAIN;
    const bool sensible = told.region <= kMaxRegionId && told.frames_bytes <= told.total_bytes &&
                          memories_.size() < kMaxMappings &&
                          IsSealedMemory(fd.get(), told.total_bytes);
    if (!sensible) {
      errno = EPROTO;
      return false;
    }
    regions_[told.region].store(nullptr);
    auto memory = std::make_unique<Memory>();
    if (!memory->mapping.Map(fd.get(), told.total_bytes)) {
      map_error_ = errno;
      continue;
    }
    memory->frames_bytes = told.frames_bytes;
    regions_[told.region].store(memory.get(), std::memory_order_release);
    memories_.push_back(std::move(memory));
  }
}

bool ShmPeer::SendRegion(const ShmRegion& region, int fd) {
  while (!unsent_regions_.empty()) {
    const auto& [first, kept] = unsent_regions_.front();
    const int kept_fd = kept.get();
    if (!SendWithFds(outgoing_socket_.get(), &first, sizeof(first), &kept_fd, 1)) break;
    unsent_regions_.pop_front();
  }
  if (fd < 0) return true;
  if (unsent_regions_.empty()) {
    if (SendWithFds(outgoing_socket_.get(), &region, sizeof(region), &fd, 1)) return true;
    if (errno != EAGAIN) return false;
  }
  unsent_regions_.emplace_back(region, UniqueFd(dup(fd)));
  return true;
}

bool ShmPeer::FindRegion(uint32_t region, PeerMemory* memory) const {
  if (region > kMaxRegionId) return false;
  const Memory* known = regions_[region].load(std::memory_order_acquire);
  if (known == nullptr) return false;
  memory->frames = known->mapping.data();
  memory->frames_bytes = known->frames_bytes;
  memory->directory = known->mapping.data() + known->frames_bytes;
  memory->directory_bytes = known->mapping.length() - known->frames_bytes;
  return true;
}

// Where the peer's frame of the record's page is, if it carries one.
uint32_t ShmPeer::FindFrame(TransportClient* client, const Record& record, uint8_t** frame) {
  *frame = nullptr;
  if (!IsPage(record.kind)) return 0;
  RegionMemory own;
  PeerMemory theirs;
  const uint32_t nonsense = static_cast<uint32_t>(CloseReason::kBadRecord);
  if (!client->DescribeRegion(record.region, &own)) return nonsense;
  // It told of the region before it said that it had mapped it; so it is there to be heard.
  if (!FindRegion(record.region, &theirs) &&
      (!ReceiveRegions() || !FindRegion(record.region, &theirs))) {
    return map_error_ != 0 ? static_cast<uint32_t>(map_error_) : nonsense;
  }
  const size_t offset = static_cast<size_t>(record.page) * own.page_bytes;
  if (theirs.frames_bytes != own.length || offset >= own.length) return nonsense;
  *frame = theirs.frames + offset;
  return 0;
}

// Holds the lock.
bool ShmPeer::Place(const Record& record, const uint8_t* page, uint8_t* frame) {
  if (!outgoing_.HasRoom()) return false;
  if (frame != nullptr) memcpy(frame, page, record.payload_bytes);
  PM_CHECK(outgoing_.Send(record));
  Stamp(Point::kPosted, record.region, record.page);
  NoteSent(record);
  return true;
}

void ShmPeer::NoteSent(const Record& record) {
  if (record.kind == kKindDiscard) {
    after_discard_.store(outgoing_.next());
    unsent_discards_.fetch_sub(1);
  }
  if (record.kind == kKindTokenPassed) {
    program_to_ring_ = true;
    return;
  }
  uint32_t slot = kBellSlots;
  if (IsLastWord(record)) {
    Hint& hint = HintOf(record);
    if (hint.region == record.region && hint.page == record.page) {
      slot = std::exchange(hint.slot, kBellSlots);
    }
  }
  if (slot < kBellSlots && slot_count_ < kMaxSlotsToRing) {
    slots_to_ring_[slot_count_++] = slot;
  } else {
    engine_to_wake_ = true;
  }
}

void ShmPeer::KeepSlot(const Record& request) {
  const uint32_t slot = request.words[kAnswerSlot];
  if (slot == 0 || slot > kBellSlots) return;
  HintOf(request) = {request.region, request.page, slot - 1};
}

void ShmPeer::Keep(const Record& record, const uint8_t* page) {
  Kept kept = {record, {}};
  if (IsPage(record.kind)) kept.page.assign(page, page + record.payload_bytes);
  backlog_.push_back(std::move(kept));
  backlogged_.store(true);
}

uint32_t ShmPeer::FlushBacklog(TransportClient* client) {
  while (!backlog_.empty()) {
    const Kept& first = backlog_.front();
    uint8_t* frame;
    const uint32_t failed = FindFrame(client, first.record, &frame);
    if (failed != 0) return failed;
    if (Place(first.record, first.page.data(), frame)) {
      backlog_.pop_front();
    } else if (!outgoing_.AwaitRoom()) {
      return 0;
    }
  }
  backlogged_.store(false);
  return 0;
}

uint32_t ShmPeer::Flush(TransportClient* client) {
  if (!unsent_regions_.empty()) SendRegion({}, -1);
  if (queue_.empty() && backlog_.empty()) return 0;
  uint32_t failed;
  {
    FutexGuard guard(send_lock_);
    for (const Queued& queued : queue_) {
      if (queued.record->kind == kKindDiscard) unsent_discards_.fetch_add(1);
    }
    failed = FlushBacklog(client);
    for (const Queued& queued : queue_) {
      uint8_t* frame;
      if (failed == 0) failed = FindFrame(client, *queued.record, &frame);
      if (failed != 0) break;
      if (backlog_.empty() && Place(*queued.record, queued.page, frame)) continue;
      Keep(*queued.record, queued.page);
    }
    if (failed == 0) failed = FlushBacklog(client);
  }
  queue_.clear();
  RingBell();
  return failed;
}

uint32_t ShmPeer::SendNow(TransportClient* client, const Record& record, const uint8_t* page) {
  uint8_t* frame;
  const uint32_t failed = FindFrame(client, record, &frame);
  if (failed != 0) return failed;
  FutexGuard guard(send_lock_);
  if (backlog_.empty() && Place(record, page, frame)) return 0;
  Keep(record, page);
  return FlushBacklog(client);
}

bool ShmPeer::TrySend(const Record& record) {
  if (!send_lock_.TryLock()) return false;
  const bool sent = !backlogged_.load() && outgoing_.Send(record);
  send_lock_.Unlock();
  if (!sent) return false;
  Stamp(Point::kPosted, record.region, record.page);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (record.kind == kKindTokenPassed && RingProgram()) return true;
  if (bell_->engine.load() != Bell::kAwake && bell_->lookers.load() == 0) WakeEngine();
  return true;
}

// False: the peer's program does not wait for a token, or will look before it sleeps.
bool ShmPeer::RingProgram() { return RingIfAsleep(&bell_->program); }

// Nobody may be waiting yet, and then nobody is woken: whoever comes to the barrier later looks
// into the ring. It must not fill up meanwhile.
bool ShmPeer::TrySendArrival(const Record& record, uint32_t which, int own_rank) {
  if (!send_lock_.TryLock()) return false;
  const bool sent = !backlogged_.load() && outgoing_.Send(record);
  const bool crowded = sent && outgoing_.IsHalfFull();
  send_lock_.Unlock();
  if (!sent) return false;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  TellArrival(bell_, which, own_rank);
  const bool tells_engine = crowded || bell_->engine_awaits.load() != 0;
  if (!tells_engine || bell_->engine.load() == Bell::kAwake) return true;
  if (crowded || bell_->lookers.load() == 0) WakeEngine();
  return true;
}

void ShmPeer::RingBell() {
  const uint32_t slots = std::exchange(slot_count_, 0);
  const bool program = std::exchange(program_to_ring_, false);
  bool engine = std::exchange(engine_to_wake_, false);
  if (slots == 0 && !engine && !program) return;
  // It marks that it sleeps, or no longer looks, before it looks for the last time.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (program && !RingProgram()) engine = true;
  if (bell_->engine.load() == Bell::kAwake || bell_->lookers.load() > 0) return;
  for (uint32_t i = 0; i < slots; i++) {
    Bell::Slot& slot = bell_->slots[slots_to_ring_[i]];
    if (slot.asleep.load() != 0) {
      Ring(&slot);
    } else {
      engine = true;
    }
  }
  if (engine) WakeEngine();
}

void ShmPeer::WakeEngine() {
  uint32_t expected = Bell::kSleeps;
  if (!bell_->engine.compare_exchange_strong(expected, Bell::kRung)) return;
  const uint64_t one = 1;
  const ssize_t ignored = write(event_fd_.get(), &one, sizeof(one));
  (void)ignored;
}

}  // namespace pagemesh
