#include "transport/shm/shm_transport.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include <utility>

#include "base/check.h"

namespace pagemesh {
namespace {

// Tokens of the other transports are connection numbers and above.
constexpr uint32_t kEventToken = 0x20000000;
constexpr uint32_t kListenerToken = 0x20000001;
constexpr uint32_t kUnknownToken = 0x20000002;  // of all that have not said who they are
constexpr uint32_t kPeerToken = 0x20000100;     // plus the rank
constexpr size_t kMaxUnknown = kMaxMembers;
constexpr int kDrainTries = 200;  // of 5 ms, before what waits for room is given up at the end
constexpr uint32_t kBatch = 256;  // records of one member, then it is the next one's turn

uint32_t Reason(CloseReason reason) { return static_cast<uint32_t>(reason); }

}  // namespace

uint8_t* ShmTransport::InnerClient::FrameFor(int rank, const Record& record, size_t* length) {
  return owner_->client_->FrameFor(rank, record, length);
}
bool ShmTransport::InnerClient::OnRecord(int connection, int rank, const Record& record,
                                         const uint8_t* blob) {
  return owner_->client_->OnRecord(connection, rank, record, blob);
}
bool ShmTransport::InnerClient::AnswerAtOnce(int rank, const Record& request, Record* answer,
                                             const uint8_t** page) {
  return owner_->client_->AnswerAtOnce(rank, request, answer, page);
}
bool ShmTransport::InnerClient::TakeAnswer(int rank, const Record& record) {
  return owner_->client_->TakeAnswer(rank, record);
}
bool ShmTransport::InnerClient::ExpectsAnswer(int rank, const Record& record, uint8_t** frame) {
  return owner_->client_->ExpectsAnswer(rank, record, frame);
}
bool ShmTransport::InnerClient::DescribeSlot(uint32_t slot, uint32_t* region, uint32_t* page) {
  return owner_->client_->DescribeSlot(slot, region, page);
}
bool ShmTransport::InnerClient::OnWord(uint32_t request, uint64_t before) {
  return owner_->client_->OnWord(request, before);
}
bool ShmTransport::InnerClient::DescribeRegion(uint32_t region, RegionMemory* memory) {
  return owner_->client_->DescribeRegion(region, memory);
}
int ShmTransport::InnerClient::HomeOf(uint32_t region, uint32_t page) {
  return owner_->client_->HomeOf(region, page);
}
void ShmTransport::InnerClient::OnOpened(int connection) { owner_->client_->OnOpened(connection); }
void ShmTransport::InnerClient::OnAccepted(int connection) {
  owner_->client_->OnAccepted(connection);
}
void ShmTransport::InnerClient::OnClosed(int connection, int rank, uint32_t reason) {
  if (rank != kNoRank && owner_->PeerAt(rank) != nullptr) {
    owner_->closing_.push_back({connection, rank, reason});
    owner_->FinishClosing();
  } else {
    owner_->client_->OnClosed(connection, rank, reason);
  }
}
void ShmTransport::InnerClient::OnLinkProbed(int rank, uint32_t reason) {
  owner_->client_->OnLinkProbed(rank, reason);
}

ShmTransport::ShmTransport(int epoll_fd, TransportClient* client, const MakeInner& make_inner)
    : epoll_fd_(epoll_fd),
      client_(client),
      inner_client_(this),
      inner_(make_inner(&inner_client_)) {
  for (int& connection : connections_) connection = -1;
  OwnBell()->engine.store(Bell::kAwake);
}

ShmTransport::~ShmTransport() = default;

bool ShmTransport::Bind(int connection, int rank) {
  if (!inner_->Bind(connection, rank)) return false;
  connections_[rank] = connection;
  return true;
}

void ShmTransport::Close(int connection) {
  for (uint32_t rank = 0; rank < kMaxMembers; rank++) {
    if (connections_[rank] == connection) EndPeer(static_cast<int>(rank));
  }
  inner_->Close(connection);
}

// What was sent last (that this member leaves) must be in the rings; there it stays.
void ShmTransport::CloseAll() {
  for (int tries = 0; tries < kDrainTries; tries++) {
    bool waits = false;
    for (auto& slot : in_use_) {
      ShmPeer* peer = slot.load();
      if (peer == nullptr) continue;
      if (peer->Flush(client_) != 0) slot.store(nullptr);
      waits = waits || peer->has_backlog();
    }
    if (!waits) break;
    const timespec pause = {0, 5 * 1000 * 1000};
    nanosleep(&pause, nullptr);
  }
  for (auto& slot : in_use_) slot.store(nullptr);
  closing_.clear();
  inner_->CloseAll();
  for (auto& peer : peers_) peer.reset();
  listener_.Reset();
}

bool ShmTransport::Watch(int fd, uint32_t token) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u32 = token;
  return epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool ShmTransport::OpenShm(int rank, std::string* what) {
  rank_ = rank;
  mine_.version = kShmVersion;
  event_fd_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (ReadBootId(&mine_.host)) listener_ = ListenShm(&mine_.name);
  const bool good = listener_.valid() && event_fd_.valid() && OwnBellFd() >= 0 &&
                    Watch(listener_.get(), kListenerToken) && Watch(event_fd_.get(), kEventToken);
  *what = good ? "memory of this host" : std::string("no memory to share: ") + strerror(errno);
  return good;
}

bool ShmTransport::OfferLink(LinkWay way, int rank, std::vector<uint8_t>* offer) {
  if (way != LinkWay::kShm) return inner_->OfferLink(way, rank, offer);
  if (!listener_.valid() || peers_[rank] != nullptr) {
    errno = listener_.valid() ? EALREADY : ENODEV;
    return false;
  }
  peers_[rank] = std::make_unique<ShmPeer>(rank);
  ShmOffer told = mine_;
  if (!FillRandom(told.token, sizeof(told.token))) return false;
  memcpy(peers_[rank]->token, told.token, sizeof(told.token));
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&told);
  offer->assign(bytes, bytes + sizeof(told));
  return true;
}

bool ShmTransport::AcceptLink(LinkWay way, int rank, const std::vector<uint8_t>& offer) {
  if (way != LinkWay::kShm) return inner_->AcceptLink(way, rank, offer);
  ShmOffer theirs;
  if (peers_[rank] == nullptr || offer.size() != sizeof(theirs)) {
    errno = EPROTO;
    return false;
  }
  memcpy(&theirs, offer.data(), sizeof(theirs));
  if (theirs.version != kShmVersion || memcmp(theirs.host, mine_.host, sizeof(theirs.host)) != 0) {
    errno = theirs.version != kShmVersion ? EPROTO : EXDEV;  // another host
    return false;
  }
  return peers_[rank]->Connect(theirs, rank_, event_fd_.get());
}

// The other side has said that it has connected: so what it handed over is there to be taken.
bool ShmTransport::ProbeLink(LinkWay way, int rank) {
  if (way != LinkWay::kShm) return inner_->ProbeLink(way, rank);
  if (peers_[rank] == nullptr) {
    errno = ENODEV;
    return false;
  }
  AcceptAll();
  client_->OnLinkProbed(rank, peers_[rank]->is_adopted() ? 0 : static_cast<uint32_t>(ENOTCONN));
  return true;
}

void ShmTransport::UseLink(LinkWay way, int rank) {
  if (way != LinkWay::kShm) return inner_->UseLink(way, rank);
  in_use_[rank].store(peers_[rank].get());
  using_any_ = true;
}

void ShmTransport::DropLink(LinkWay way, int rank) {
  if (way != LinkWay::kShm) return inner_->DropLink(way, rank);
  EndPeer(rank);
  peers_[rank].reset();  // never used, so nobody else looks at it
}

void ShmTransport::AcceptAll() {
  for (UniqueFd fd = AcceptShm(listener_.get()); fd.valid(); fd = AcceptShm(listener_.get())) {
    if (unknown_.size() < kMaxUnknown && Watch(fd.get(), kUnknownToken)) {
      unknown_.push_back(std::move(fd));
    }
  }
  for (size_t i = unknown_.size(); i-- > 0;) {
    if (!Greet(&unknown_[i]) && errno == EAGAIN) continue;
    unknown_.erase(unknown_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// Hears who has connected. False with errno set; EAGAIN if it has said nothing yet.
bool ShmTransport::Greet(UniqueFd* socket) {
  ShmHello hello;
  UniqueFd fds[3];
  if (!ReceiveWithFds(socket->get(), &hello, sizeof(hello), fds, 3)) return false;
  errno = EPROTO;
  if (hello.version != kShmVersion || hello.rank >= kMaxMembers) return false;
  ShmPeer* peer = peers_[hello.rank].get();
  if (peer == nullptr || peer->is_adopted()) return false;
  if (memcmp(hello.token, peer->token, sizeof(hello.token)) != 0) return false;
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u32 = kPeerToken + hello.rank;
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, socket->get(), &event);
  return peer->Adopt(std::move(*socket), fds[0], fds[1], std::move(fds[2]));
}

int ShmTransport::ShareRegion(uint32_t region, int fd, size_t frames_bytes, size_t total_bytes) {
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load();
    if (peer == nullptr) continue;
    if (!peer->SendRegion({region, 0, frames_bytes, total_bytes}, fd)) {
      Break(peer->rank(), Reason(CloseReason::kNotReading));
    }
  }
  return 0;
}

bool ShmTransport::FindPeerMemory(int rank, uint32_t region, PeerMemory* memory) const {
  const ShmPeer* peer = PeerAt(rank);
  return peer != nullptr && peer->FindRegion(region, memory);
}

bool ShmTransport::HasSteppedDiscards(int rank) const {
  const ShmPeer* peer = PeerAt(rank);
  return peer != nullptr && peer->HasSteppedDiscards();
}

void ShmTransport::Queue(int rank, const Record* record, const uint8_t* payload) {
  ShmPeer* peer = PeerAt(rank);
  if (peer == nullptr || record->kind >= kFirstBlobKind) {
    inner_->Queue(rank, record, payload);
  } else {
    peer->Queue(record, payload);
  }
}

void ShmTransport::Flush() {
  inner_->Flush();
  if (!using_any_) return;
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load(std::memory_order_relaxed);
    const uint32_t failed = peer == nullptr ? 0 : peer->Flush(client_);
    if (failed != 0) Break(peer->rank(), failed);
  }
}

bool ShmTransport::TrySend(int rank, const Record& record, uint32_t slot) {
  ShmPeer* peer = PeerAt(rank);
  if (peer == nullptr) return inner_->TrySend(rank, record, slot);
  if (record.kind == kKindTokenPassed) return peer->TrySend(record);
  if (!IsRequest(record.kind)) return false;
  Record told = record;
  if (slot < kBellSlots) told.words[kAnswerSlot] = slot + 1;
  return peer->TrySend(told);
}

// Carries out answers that are first in the ring; true if there is something behind them that is
// for the engine. Any thread that holds the peer's lock.
bool ShmTransport::TakeAnswers(ShmPeer* peer) {
  for (;;) {
    Record record;
    const RingReceiver::Found found = peer->incoming.Peek(&record);
    if (found == RingReceiver::Found::kNothing) return false;
    if (found == RingReceiver::Found::kNonsense) return true;
    if (!client_->TakeAnswer(peer->rank(), record)) return true;
    records_.fetch_add(1, std::memory_order_relaxed);
    if (peer->incoming.Take()) peer->TellOfRoom();
  }
}

bool ShmTransport::PollAnswers() {
  bool for_engine = false;
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load(std::memory_order_acquire);
    if (peer == nullptr || peer->incoming.IsEmpty()) continue;
    if (!peer->receive_lock.TryLock()) continue;  // whoever looks now finds mine too
    for_engine = TakeAnswers(peer) || for_engine;
    peer->receive_lock.Unlock();
  }
  return (inner_->Polls() && inner_->PollAnswers()) || for_engine;
}

bool ShmTransport::WatchAnswers() {
  const bool for_engine = WatchTokens();
  return (inner_->Polls() && inner_->WatchAnswers()) || for_engine;
}

bool ShmTransport::WatchTokens() {
  bool for_engine = false;
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load(std::memory_order_acquire);
    if (peer == nullptr) continue;
    // Not TryLock: whoever looks now may have looked before mine came.
    FutexGuard guard(peer->receive_lock);
    for_engine = TakeAnswers(peer) || for_engine;
  }
  return for_engine;
}

// Hands over what is in the peer's ring.
ShmTransport::Outcome ShmTransport::Receive(ShmPeer* peer) {
  if (peer->incoming.IsEmpty()) return Outcome::kNothing;
  bool refused = false;
  uint32_t failed = 0;
  {
    FutexGuard guard(peer->receive_lock);
    for (uint32_t i = 0; i < kBatch; i++) {
      Record record;
      const RingReceiver::Found found = peer->incoming.Peek(&record);
      if (found == RingReceiver::Found::kNothing) break;
      const bool sound = found == RingReceiver::Found::kRecord;
      failed = sound ? Deliver(peer, record, &refused) : Reason(CloseReason::kBadRecord);
      if (failed != 0 || refused) break;
      records_.fetch_add(1, std::memory_order_relaxed);
      if (peer->incoming.Take()) peer->TellOfRoom();
    }
  }
  peer->RingBell();  // for what was answered at once
  if (failed != 0) Break(peer->rank(), failed);
  return refused ? Outcome::kRefused : Outcome::kHandled;
}

// One record; its bytes are a peer's. 0, or why they cannot be.
uint32_t ShmTransport::Deliver(ShmPeer* peer, const Record& record, bool* refused) {
  const int rank = peer->rank();
  if (record.kind == 0 || record.kind >= kFirstBlobKind) return Reason(CloseReason::kBadRecord);
  if (client_->TakeAnswer(rank, record)) return 0;
  if (record.kind >= kFirstPageKind) {
    // The bytes are in the frame already; whether they were awaited is asked all the same.
    size_t length = 0;
    if (client_->FrameFor(rank, record, &length) == nullptr || length != record.payload_bytes) {
      return Reason(CloseReason::kBadPage);
    }
  } else if (record.payload_bytes != 0) {
    return Reason(CloseReason::kBadRecord);
  }
  Record answer;
  const uint8_t* page = nullptr;
  if (IsRequest(record.kind)) peer->KeepSlot(record);
  if (client_->AnswerAtOnce(rank, record, &answer, &page)) {
    return peer->SendNow(client_, answer, page);
  }
  *refused = !client_->OnRecord(connections_[rank], rank, record, nullptr);
  return 0;
}

// True if there was anything.
bool ShmTransport::ReceiveAll() {
  bool any = false;
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load(std::memory_order_relaxed);
    if (peer == nullptr) continue;
    any = Receive(peer) != Outcome::kNothing || any;
    if (!peer->has_backlog() || PeerAt(peer->rank()) != peer) continue;
    const uint32_t failed = peer->Flush(client_);
    if (failed != 0) Break(peer->rank(), failed);
  }
  return any;
}

bool ShmTransport::Poll() {
  const bool any = using_any_ && ReceiveAll();
  return (inner_->Polls() && inner_->Poll()) || any;
}

void ShmTransport::Arm(bool every_answer) {
  OwnBell()->engine.store(Bell::kSleeps);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (inner_->Polls()) inner_->Arm(every_answer);
}

void ShmTransport::Disarm() {
  OwnBell()->engine.store(Bell::kAwake);
  inner_->Disarm();
}

void ShmTransport::MarkStepped() {
  if (!using_any_) return;
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load(std::memory_order_relaxed);
    if (peer != nullptr) peer->incoming.MarkStepped();
  }
}

void ShmTransport::OnReady(uint32_t token, uint32_t events) {
  if (token == kEventToken) {
    uint64_t value;
    const ssize_t ignored = read(event_fd_.get(), &value, sizeof(value));
    (void)ignored;
    ReceiveAll();
  } else if (token == kListenerToken || token == kUnknownToken) {
    AcceptAll();
  } else if (token >= kPeerToken && token < kPeerToken + kMaxMembers) {
    ShmPeer* peer = peers_[token - kPeerToken].get();
    if (peer == nullptr || peer->ReceiveRegions()) return;
    // Its end is noticed by its connection, and what it says must make sense until then.
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, peer->socket(), nullptr);
    if ((events & EPOLLHUP) == 0) Break(peer->rank(), Reason(CloseReason::kBadRecord));
  } else {
    inner_->OnReady(token, events);
  }
}

bool ShmTransport::Resume() {
  bool refused = inner_->Resume();
  if (!using_any_) return refused;
  FinishClosing();
  for (auto& slot : in_use_) {
    ShmPeer* peer = slot.load(std::memory_order_relaxed);
    refused = refused || (peer != nullptr && Receive(peer) == Outcome::kRefused);
  }
  return refused || !closing_.empty();
}

// Tells of connections that have closed, once all is handed over that came before.
void ShmTransport::FinishClosing() {
  std::vector<Closing> again;
  again.swap(closing_);
  for (const Closing& closing : again) {
    ShmPeer* peer = PeerAt(closing.rank);
    Outcome outcome = Outcome::kNothing;
    do {
      outcome = peer == nullptr ? Outcome::kNothing : Receive(peer);
    } while (outcome == Outcome::kHandled && PeerAt(closing.rank) != nullptr);
    if (outcome == Outcome::kRefused) {
      closing_.push_back(closing);
      continue;
    }
    if (peer != nullptr && PeerAt(closing.rank) == nullptr) continue;  // told already
    EndPeer(closing.rank);
    client_->OnClosed(closing.connection, closing.rank, closing.reason);
  }
}

// Nothing goes to the member or comes from it any more. Its memory stays: threads may look at it.
void ShmTransport::EndPeer(int rank) { in_use_[rank].store(nullptr); }

// What the member sends is of no use any more: so is the member.
void ShmTransport::Break(int rank, uint32_t reason) {
  if (broken_[rank]) return;
  broken_[rank] = true;
  EndPeer(rank);
  const int connection = connections_[rank];
  if (connection < 0 || !inner_->IsOpen(rank)) return;
  inner_->Close(connection);
  client_->OnClosed(connection, rank, reason);
}

}  // namespace pagemesh
