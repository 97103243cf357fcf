#include "transport/verbs/verbs_transport.h"

#if PAGEMESH_HAS_VERBS

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include <algorithm>

#include "base/check.h"

namespace pagemesh {
namespace {

constexpr uint32_t kCompletionToken = 0x40000000;  // TCP's tokens are connection numbers
constexpr uint32_t kEventToken = 0x40000001;
constexpr int kDrainTries = 200;  // of 5 ms, before a link is given up at the end

// Where a record carries keys; lib/protocol/messages.ts uses words 0 and 1 of page messages.
constexpr int kRequesterKey = 2;  // rkey, address low, address high
constexpr int kHomeKey = 5;
constexpr uint32_t kNewsAlone = 0;  // in place of a kind: nothing came but news of credit

bool IsRecall(uint32_t kind) { return kind == kKindRecallRead || kind == kKindRecallWrite; }

void WriteKey(Record* record, int at, const RemoteFrame& frame) {
  record->words[at] = frame.rkey;
  record->words[at + 1] = static_cast<uint32_t>(frame.address);
  record->words[at + 2] = static_cast<uint32_t>(frame.address >> 32);
}

// Where peers may write a page of this member's.
RemoteFrame FrameOf(const RegionMemory& memory, uint32_t page, const ibv_mr* mr) {
  return {mr->rkey, reinterpret_cast<uintptr_t>(memory.base) +
                        static_cast<uint64_t>(page) * memory.page_bytes};
}

RemoteFrame ReadKey(const Record& record, int at) {
  RemoteFrame frame;
  frame.rkey = record.words[at];
  frame.address = record.words[at + 1] | (static_cast<uint64_t>(record.words[at + 2]) << 32);
  return frame;
}

}  // namespace

VerbsTransport::VerbsTransport(int epoll_fd, TransportClient* client)
    : epoll_fd_(epoll_fd), client_(client), tcp_client_(this), tcp_(epoll_fd, &tcp_client_) {
  for (int& connection : connections_) connection = -1;
}

VerbsTransport::~VerbsTransport() = default;

uint8_t* VerbsTransport::TcpClient::FrameFor(int rank, const Record& record, size_t* length) {
  return owner_->client_->FrameFor(rank, record, length);
}
bool VerbsTransport::TcpClient::OnRecord(int connection, int rank, const Record& record,
                                         const uint8_t* blob) {
  if (rank != kNoRank) owner_->KeepKeys(rank, record);
  return owner_->client_->OnRecord(connection, rank, record, blob);
}
bool VerbsTransport::TcpClient::TakeAnswer(int rank, const Record& record) {
  return owner_->client_->TakeAnswer(rank, record);
}
bool VerbsTransport::TcpClient::ExpectsAnswer(int rank, const Record& record, uint8_t** frame) {
  return owner_->client_->ExpectsAnswer(rank, record, frame);
}
void VerbsTransport::TcpClient::OnOpened(int connection) { owner_->client_->OnOpened(connection); }
void VerbsTransport::TcpClient::OnAccepted(int connection) {
  owner_->client_->OnAccepted(connection);
}
void VerbsTransport::TcpClient::OnClosed(int connection, int rank, uint32_t reason) {
  if (rank != kNoRank) {
    owner_->PollCompletions();  // its last words may have come over the link
    owner_->EndLink(rank);
  }
  owner_->client_->OnClosed(connection, rank, reason);
}
bool VerbsTransport::TcpClient::DescribeRegion(uint32_t region, RegionMemory* memory) {
  return owner_->client_->DescribeRegion(region, memory);
}
int VerbsTransport::TcpClient::HomeOf(uint32_t region, uint32_t page) {
  return owner_->client_->HomeOf(region, page);
}

bool VerbsTransport::Bind(int connection, int rank) {
  if (!tcp_.Bind(connection, rank)) return false;
  connections_[rank] = connection;
  return true;
}

void VerbsTransport::Close(int connection) {
  for (uint32_t rank = 0; rank < kMaxMembers; rank++) {
    if (connections_[rank] == connection) EndLink(static_cast<int>(rank));
  }
  tcp_.Close(connection);
}

// What was sent last (that this member leaves) must arrive before the queue pairs go.
void VerbsTransport::CloseAll() {
  for (size_t at = ring_head_; at != ring_tail_; at = (at + 1) % ring_.size()) {
    const ibv_wc& completion = ring_[at];
    VerbsLink* link = links_[VerbsLink::RankOf(completion.wr_id)].get();
    if (!VerbsLink::IsReceive(completion.wr_id)) link->OnSent(completion);
  }
  for (int tries = 0; device_ != nullptr && tries < kDrainTries; tries++) {
    bool idle = true;
    for (const auto& link : links_) {
      if (link == nullptr || in_use_[link->rank()].load() == nullptr) continue;
      if (tries == 0) link->RequestCompletion();
      idle = idle && link->idle();
    }
    if (idle) break;
    const timespec pause = {0, 5 * 1000 * 1000};
    nanosleep(&pause, nullptr);
    ibv_wc completions[kPollBatch];
    const int count = ibv_poll_cq(device_->cq(), kPollBatch, completions);
    for (int i = 0; i < count; i++) {
      VerbsLink* link = links_[VerbsLink::RankOf(completions[i].wr_id)].get();
      if (completions[i].status != IBV_WC_SUCCESS)
        in_use_[link->rank()].store(nullptr);
      else if (!VerbsLink::IsReceive(completions[i].wr_id))
        link->OnSent(completions[i]);
    }
  }
  for (auto& slot : in_use_) slot.store(nullptr);
  tcp_.CloseAll();
  for (auto& link : links_) link.reset();
  words_.reset();
  device_.reset();
}

VerbsLink* VerbsTransport::LinkTo(int rank) const {
  return in_use_[rank].load(std::memory_order_acquire);
}

bool VerbsTransport::OpenLinks(const RdmaAddress& at, int rank, std::string* what) {
  if (device_ != nullptr) {
    *what = "a device is open already";
    return false;
  }
  rank_ = rank;
  device_ = VerbsDevice::Open(at, kMaxMembers, what);
  if (device_ == nullptr) return false;
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u32 = kCompletionToken;
  bool watched = epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, device_->event_fd(), &event) == 0;
  event.data.u32 = kEventToken;
  watched = watched && epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, device_->async_fd(), &event) == 0;
  if (!watched) {
    *what = strerror(errno);
    device_.reset();
    return false;
  }
  ring_.resize(static_cast<size_t>(VerbsLink::kMaxCompletions) * kMaxMembers + 1);
  const VerbsPort& port = device_->port();
  *what = port.device + " port " + std::to_string(port.port) + " GID " +
          std::to_string(port.gid_index) + " MTU " + std::to_string(128 << port.mtu);
  return true;
}

bool VerbsTransport::OfferLink(LinkWay way, int rank, std::vector<uint8_t>* offer) {
  if (way != LinkWay::kVerbs || device_ == nullptr || links_[rank] != nullptr) {
    errno = links_[rank] == nullptr ? ENODEV : EALREADY;
    return false;
  }
  auto link = std::make_unique<VerbsLink>(device_.get(), rank);
  VerbsOffer mine = {};
  if (!link->Prepare(&mine)) return false;
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&mine);
  offer->assign(bytes, bytes + sizeof(mine));
  links_[rank] = std::move(link);
  return true;
}

bool VerbsTransport::AcceptLink(LinkWay way, int rank, const std::vector<uint8_t>& offer) {
  VerbsOffer theirs;
  if (way != LinkWay::kVerbs || links_[rank] == nullptr || offer.size() != sizeof(theirs)) {
    errno = EPROTO;
    return false;
  }
  memcpy(&theirs, offer.data(), sizeof(theirs));
  return links_[rank]->Connect(theirs);
}

bool VerbsTransport::ProbeLink(LinkWay way, int rank) {
  const bool linked = way == LinkWay::kVerbs && links_[rank] != nullptr;
  errno = linked ? links_[rank]->Probe() : ENODEV;
  probing_[rank] = errno == 0;
  return probing_[rank];
}

void VerbsTransport::UseLink(LinkWay way, int rank) {
  if (way == LinkWay::kVerbs) in_use_[rank].store(links_[rank].get());
}

void VerbsTransport::DropLink(LinkWay way, int rank) {
  if (way != LinkWay::kVerbs) return;
  probing_[rank] = false;
  EndLink(rank);
}

// A queue pair connects to anything; only an acknowledged message shows that somebody is there.
void VerbsTransport::EndProbe(VerbsLink* link, uint32_t reason) {
  probing_[link->rank()] = false;
  if (reason != 0) link->End();
  client_->OnLinkProbed(link->rank(), reason);
}

// Registered memory is locked. The limit is looked at here, where it is an error of one call, and
// not when a page is on its way.
bool VerbsTransport::AdmitRegion(size_t bytes) {
  if (device_ == nullptr) return true;
  if (bytes >
      VerbsDevice::MemlockLimit() - std::min(admitted_bytes_, VerbsDevice::MemlockLimit())) {
    return false;
  }
  admitted_bytes_ += bytes;
  return true;
}

void VerbsTransport::ForgetRegion(uint32_t region) {
  if (device_ != nullptr) device_->Forget(region);
  frames_.Forget(region);
  if (words_ != nullptr) words_->Withdraw(region);
}

bool VerbsTransport::ShareWords(uint32_t region, uint8_t* base, size_t length, WordsKey* key) {
  if (device_ == nullptr) return false;
  if (words_ == nullptr) words_ = VerbsWords::Create(device_.get());
  return words_ != nullptr && LinkToSelf() && AdmitRegion(length) &&
         words_->Share(region, base, length, key);
}

// A queue pair whose other end is itself: words of this member's own are changed through it.
bool VerbsTransport::LinkToSelf() {
  std::vector<uint8_t> offer;
  linked_to_self_ = linked_to_self_ || (OfferLink(LinkWay::kVerbs, rank_, &offer) &&
                                        AcceptLink(LinkWay::kVerbs, rank_, offer));
  return linked_to_self_;
}

void VerbsTransport::ChangeWord(int rank, const WordChange& change) {
  VerbsLink* link = rank == rank_ ? links_[rank].get() : LinkTo(rank);
  if (words_ == nullptr || link == nullptr || broken_[rank]) return;
  const int failed = words_->Change(link, change);
  if (failed != 0) Break(rank, static_cast<uint32_t>(failed));
}

void VerbsTransport::ProgressWords() {
  if (words_ == nullptr) return;
  for (const auto& link : links_) {
    if (link == nullptr || link->ended()) continue;
    const int failed = words_->Progress(link.get());
    if (failed != 0) Break(link->rank(), static_cast<uint32_t>(failed));
  }
}

// A request says where the page is to be written, and a recall where its requester's and the
// home's frames are: the keys travel with the messages that need them.
void VerbsTransport::AddKeys(Record* record) {
  RegionMemory memory;
  if (device_ == nullptr || !client_->DescribeRegion(record->region, &memory)) return;
  ibv_mr* mine = device_->Register(memory, record->page);
  PM_CHECK_STATE(mine != nullptr, errno, record->page);  // AdmitRegion looked at the limit
  const RemoteFrame own = FrameOf(memory, record->page, mine);
  if (IsRequest(record->kind)) {
    WriteKey(record, kRequesterKey, own);
    return;
  }
  const int requester = static_cast<int>(record->words[0]);
  const bool for_self = requester == rank_;
  WriteKey(record, kRequesterKey, for_self ? own : frames_.Find(requester, memory, record->page));
  WriteKey(record, kHomeKey, own);
}

// The last word on a request goes to the thread that sent it, if it looks for it; it is not the
// last one if acknowledgements are to come.
uint32_t VerbsTransport::TakeSlot(int rank, const RegionMemory& memory, const Record& record) {
  const uint32_t slot = frames_.TakeSlot(rank, memory, record.page);
  return record.words[0] == 0 ? slot : RemoteFrames::kNoSlot;
}

void VerbsTransport::KeepKeys(int from, const Record& record) {
  const bool is_request = IsRequest(record.kind);
  if (device_ == nullptr || !(is_request || IsRecall(record.kind))) return;
  // A record that the protocol will refuse must not replace what an honest member has told.
  if (client_->HomeOf(record.region, record.page) != (is_request ? rank_ : from)) return;
  RegionMemory memory;
  if (!client_->DescribeRegion(record.region, &memory)) return;
  const uint32_t page = record.page;
  if (is_request) {
    frames_.Keep(from, from, memory, page, ReadKey(record, kRequesterKey));
    const uint32_t slot = record.words[kAnswerSlot];
    const bool known = slot > 0 && slot <= 1U << VerbsImmediate::kSlotBits;
    frames_.KeepSlot(from, memory, page, known ? slot - 1 : RemoteFrames::kNoSlot);
  } else if (record.words[0] < kMaxMembers) {
    const int requester = static_cast<int>(record.words[0]);
    frames_.Keep(requester, from, memory, page, ReadKey(record, kRequesterKey));
    frames_.Keep(from, from, memory, page, ReadKey(record, kHomeKey));
  }
}

void VerbsTransport::Queue(int rank, const Record* record, const uint8_t* payload) {
  if (device_ == nullptr || record->kind >= kFirstBlobKind) {
    tcp_.Queue(rank, record, payload);
    return;
  }
  VerbsLink* link = LinkTo(rank);
  if (link != nullptr && IsPage(record->kind)) {
    QueuePage(link, *record, payload);
    return;
  }
  Record keyed = *record;
  if (IsRequest(record->kind) || IsRecall(record->kind)) AddKeys(&keyed);
  if (link == nullptr) {
    // TCP keeps pointers until Flush, so what was added has to stay as long.
    tcp_records_.push_back(keyed);
    tcp_.Queue(rank, &tcp_records_.back(), payload);
    return;
  }
  uint32_t slot = RemoteFrames::kNoSlot;
  RegionMemory memory;
  if (record->kind == kKindGrant && client_->DescribeRegion(record->region, &memory)) {
    slot = TakeSlot(rank, memory, *record);
  }
  link->Queue(keyed, {}, slot);
}

void VerbsTransport::QueuePage(VerbsLink* link, const Record& record, const uint8_t* payload) {
  const int rank = link->rank();
  RegionMemory memory;
  ibv_mr* mr = nullptr;
  if (client_->DescribeRegion(record.region, &memory)) mr = device_->Register(memory, record.page);
  PM_CHECK_STATE(mr != nullptr, errno, record.page);  // AdmitRegion looked at the limit
  const RemoteFrame remote = frames_.Find(rank, memory, record.page);
  const bool from_owner = record.kind == kKindWriteBack || record.words[1] != 0;
  if (!remote.known()) {
    // A requester without a link to the home sent no key that reached this member. Then the page
    // comes from an owner, and its entry is busy until the requester confirms: it may go over
    // TCP, because no later message of the link depends on its being there. A page from its home
    // may not, and its requester has a link and has told no key.
    if (!from_owner) {
      Break(rank, static_cast<uint32_t>(CloseReason::kBadRecord));
      return;
    }
    tcp_records_.push_back(record);
    tcp_.Queue(rank, &tcp_records_.back(), payload);
    return;
  }
  const uint32_t slot = from_owner ? RemoteFrames::kNoSlot : TakeSlot(rank, memory, record);
  link->Queue(record, {payload, mr->lkey, remote}, slot);
}

void VerbsTransport::Flush() {
  tcp_.Flush();
  tcp_records_.clear();
  if (device_ != nullptr) ProgressAll();
}

void VerbsTransport::ProgressAll() {
  for (auto& slot : in_use_) {
    VerbsLink* link = slot.load(std::memory_order_relaxed);
    const int failed = link == nullptr ? 0 : link->Progress();
    if (failed != 0) Break(link->rank(), static_cast<uint32_t>(failed));
  }
}

bool VerbsTransport::TrySend(int rank, const Record& record, uint32_t slot) {
  if (device_ == nullptr) return tcp_.TrySend(rank, record, slot);
  RegionMemory memory;
  if (!IsRequest(record.kind) || !client_->DescribeRegion(record.region, &memory)) return false;
  ibv_mr* mine = device_->FindRegistered(memory, record.page);
  if (mine == nullptr) return false;  // the engine registers the chunk, and then sends it
  Record keyed = record;
  WriteKey(&keyed, kRequesterKey, FrameOf(memory, record.page, mine));
  VerbsLink* link = LinkTo(rank);
  if (link == nullptr) return tcp_.TrySend(rank, keyed, slot);
  if (slot < 1U << VerbsImmediate::kSlotBits) keyed.words[kAnswerSlot] = slot + 1;
  return link->TrySend(keyed);
}

bool VerbsTransport::TrySendArrival(int rank, const Record& record, uint32_t which) {
  VerbsLink* link = device_ == nullptr ? nullptr : LinkTo(rank);
  return link == nullptr ? tcp_.TrySendArrival(rank, record, which) : link->TrySend(record);
}

void VerbsTransport::OnReady(uint32_t token, uint32_t events) {
  if (token != kCompletionToken && token != kEventToken) {
    tcp_.OnReady(token, events);
    return;
  }
  if (device_ == nullptr) return;
  if (token == kEventToken) {
    TakeDeviceEvents();
    return;
  }
  device_->AcknowledgeEvents();
  PollCompletions();
}

bool VerbsTransport::Resume() {
  const bool tcp_refused = tcp_.Resume();
  if (ring_head_.load() != ring_tail_.load()) PollCompletions();
  return tcp_refused || ring_head_.load() != ring_tail_.load();
}

bool VerbsTransport::Poll() { return device_ != nullptr ? PollCompletions() : tcp_.Poll(); }

void VerbsTransport::Arm(bool every_answer) {
  if (device_ == nullptr) return;
  // What waits for credit or for room in a send queue goes on after completions of any kind, and
  // nobody marks the completion of an atomic.
  for (const auto& link : links_) {
    if (link == nullptr || link->ended()) continue;
    const bool waits = words_ != nullptr && words_->IsBusy(link->rank());
    every_answer = every_answer || waits || link->has_backlog() || probing_[link->rank()];
  }
  device_->Arm(every_answer);
}

bool VerbsTransport::PollAnswers() {
  if (device_ == nullptr) return tcp_.PollAnswers();
  if (!receive_lock_.TryLock()) return false;  // whoever looks now finds mine too
  const bool for_engine = AnswersLocked(false);
  receive_lock_.Unlock();
  return for_engine;
}

bool VerbsTransport::WatchAnswers() {
  if (device_ == nullptr) return tcp_.WatchAnswers();
  device_->Arm(true);
  // Not TryLock: whoever looks now may have looked before mine came.
  FutexGuard guard(receive_lock_);
  return AnswersLocked(true);
}

// True: something is there for the engine.
bool VerbsTransport::AnswersLocked(bool all) {
  ibv_wc completions[kThreadPollBatch];
  bool for_engine = false;
  int count;
  do {
    count = ibv_poll_cq(device_->cq(), kThreadPollBatch, completions);
    for (int i = 0; i < count; i++) {
      if (TakeLocked(completions[i])) continue;
      KeepLocked(completions[i]);
      for_engine = true;
    }
  } while (all && count > 0);
  return for_engine;
}

// Carries out what a faulting thread may; false leaves it to the engine.
bool VerbsTransport::TakeLocked(const ibv_wc& completion) {
  VerbsLink* link = LinkTo(static_cast<int>(VerbsLink::RankOf(completion.wr_id)));
  if (link == nullptr || completion.status != IBV_WC_SUCCESS) return false;
  if (!VerbsLink::IsReceive(completion.wr_id)) {
    if (link->has_backlog() || VerbsLink::IsWord(completion.wr_id)) return false;
    link->OnSent(completion);
    return true;
  }
  Record record;
  if (link->has_backlog() || !link->HasGoodCredit(completion) ||
      !Decode(*link, completion, &record) || !client_->TakeAnswer(link->rank(), record)) {
    return false;
  }
  link_records_.fetch_add(1, std::memory_order_relaxed);
  link->Release(completion);  // if it fails now, the engine's PostReceives says so
  return true;
}

void VerbsTransport::KeepLocked(const ibv_wc& completion) {
  const size_t tail = ring_tail_.load(std::memory_order_relaxed);
  const size_t next = (tail + 1) % ring_.size();
  PM_CHECK_STATE(next != ring_head_.load(), tail, ring_.size());
  ring_[tail] = completion;
  ring_tail_.store(next, std::memory_order_release);
}

// Carries out what faulting threads look for, and moves the rest into the ring; false if there is
// nothing.
bool VerbsTransport::Fetch() {
  ibv_wc completions[kPollBatch];
  FutexGuard guard(receive_lock_);
  const int count = ibv_poll_cq(device_->cq(), kPollBatch, completions);
  PM_CHECK_STATE(count >= 0, count, errno);
  for (int i = 0; i < count; i++) {
    if (!TakeLocked(completions[i])) KeepLocked(completions[i]);
  }
  return count > 0;
}

// True if anything was done.
bool VerbsTransport::PollCompletions() {
  if (device_ == nullptr) return false;
  bool handled = false;
  do {
    for (;;) {
      const size_t head = ring_head_.load(std::memory_order_relaxed);
      if (head == ring_tail_.load(std::memory_order_acquire)) break;
      const ibv_wc completion = ring_[head];
      if (!HandleCompletion(completion)) return true;
      ring_head_.store((head + 1) % ring_.size(), std::memory_order_release);
      handled = true;
    }
  } while (Fetch());
  if (!handled) return false;
  for (auto& slot : in_use_) {
    VerbsLink* link = slot.load(std::memory_order_relaxed);
    if (link == nullptr) continue;
    FutexGuard guard(receive_lock_);
    const int failed = link->PostReceives();
    if (failed != 0) Break(link->rank(), static_cast<uint32_t>(failed));
  }
  ProgressAll();
  ProgressWords();
  return true;
}

// False: the client has no room.
bool VerbsTransport::HandleCompletion(const ibv_wc& completion) {
  const int rank = static_cast<int>(VerbsLink::RankOf(completion.wr_id));
  VerbsLink* link = links_[rank].get();
  PM_CHECK_STATE(link != nullptr, rank, completion.status);
  if (completion.status != IBV_WC_SUCCESS) {
    if (link->ended()) return true;  // flushed, of a member that is down
    const uint32_t reason = kFirstVerbsReason + static_cast<uint32_t>(completion.status);
    if (probing_[rank]) {
      EndProbe(link, reason);
    } else {
      Break(rank, reason);
    }
    return true;
  }
  if (!VerbsLink::IsReceive(completion.wr_id)) {
    const bool word = VerbsLink::IsWord(completion.wr_id);
    if (word && !words_->OnCompletion(link, completion, client_)) return false;
    link->OnSent(completion);
    if (probing_[rank]) EndProbe(link, 0);
    return true;
  }
  return Deliver(link, completion);
}

// What a completion says, as a record: one of kind kNewsAlone if it is that. The bytes are a
// peer's: false if they cannot be. A WRITE ends a receive too, if it has immediate data, and leaves
// what was in the buffer: it may only be an answer.
bool VerbsTransport::Decode(const VerbsLink& link, const ibv_wc& completion, Record* record) const {
  if ((completion.wc_flags & IBV_WC_WITH_IMM) == 0) return false;
  const VerbsImmediate immediate = VerbsImmediate::Decode(completion.imm_data);
  if (immediate.is_answer != (completion.opcode == IBV_WC_RECV_RDMA_WITH_IMM)) return false;
  *record = {};
  if (!immediate.is_answer && completion.byte_len == 0) return true;
  if (!immediate.is_answer) {
    *record = link.Received(completion);
    return completion.byte_len == sizeof(Record) && record->kind != kNewsAlone &&
           record->kind < kFirstBlobKind;
  }
  record->payload_bytes = completion.byte_len;
  record->kind = immediate.exclusive ? kKindDataExclusive : kKindData;
  record->view = immediate.view;
  return client_->DescribeSlot(immediate.slot, &record->region, &record->page);
}

bool VerbsTransport::Deliver(VerbsLink* link, const ibv_wc& completion) {
  const int rank = link->rank();
  // Whoever had broken the protocol before may have sent more; it is not heard any more.
  if (broken_[rank]) return true;
  Record record;
  if (!Decode(*link, completion, &record)) {
    Break(rank, static_cast<uint32_t>(CloseReason::kBadRecord));
    return true;
  }
  if (!link->HasGoodCredit(completion)) {
    Break(rank, static_cast<uint32_t>(CloseReason::kBadCredit));
    return true;
  }
  if (record.kind != kNewsAlone) {
    size_t length = 0;
    if (IsPage(record.kind)) {
      // The bytes are in the frame already, by the right that was given for its chunk; whether
      // they were awaited is asked all the same.
      if (client_->FrameFor(rank, record, &length) == nullptr || length != record.payload_bytes) {
        Break(rank, static_cast<uint32_t>(CloseReason::kBadPage));
        return true;
      }
    } else if (record.payload_bytes != 0) {
      Break(rank, static_cast<uint32_t>(CloseReason::kBadRecord));
      return true;
    }
    KeepKeys(rank, record);
    Record answer;
    const uint8_t* page = nullptr;
    if (LinkTo(rank) == link && client_->AnswerAtOnce(rank, record, &answer, &page)) {
      QueuePage(link, answer, page);
    } else if (!client_->OnRecord(connections_[rank], rank, record, nullptr)) {
      return false;
    }
    link_records_.fetch_add(1, std::memory_order_relaxed);
  }
  FutexGuard guard(receive_lock_);
  const int failed = link->Release(completion);
  if (failed != 0) Break(rank, static_cast<uint32_t>(failed));
  return true;
}

// What the device says of itself and of queue pairs. A port that is down is no reason to give up:
// it may come back, and if not, what is sent runs out of tries within two seconds.
void VerbsTransport::TakeDeviceEvents() {
  ibv_event_type type;
  uint32_t qp_number;
  while (device_->TakeEvent(&type, &qp_number)) {
    const bool of_device = type == IBV_EVENT_DEVICE_FATAL || type == IBV_EVENT_CQ_ERR;
    for (const auto& link : links_) {
      if (link == nullptr) continue;
      const bool to_self = link->rank() == rank_ && linked_to_self_;
      const bool probing = probing_[link->rank()];
      if (!to_self && !probing && LinkTo(link->rank()) != link.get()) continue;
      if (!of_device && link->qp_number() != qp_number) continue;
      PollCompletions();  // what it sent before is still good
      const uint32_t reason = kFirstVerbsEventReason + static_cast<uint32_t>(type);
      if (probing_[link->rank()]) {
        EndProbe(link.get(), reason);
      } else {
        Break(link->rank(), reason);
      }
    }
  }
}

// No record goes over the link any more, and the member can write no more: when it is down, what it
// still believes that it may write must not change. The queue pair itself stays until the end,
// because threads may be about to post to it; what is flushed from it is of no interest.
void VerbsTransport::EndLink(int rank) {
  in_use_[rank].store(nullptr);
  if (links_[rank] != nullptr) links_[rank]->End();
}

// The link to a member is of no use any more: so is the member.
void VerbsTransport::Break(int rank, uint32_t reason) {
  if (broken_[rank]) return;
  broken_[rank] = true;
  EndLink(rank);
  const int connection = connections_[rank];
  if (rank == rank_) client_->OnClosed(connection, rank, reason);  // to itself, so nobody sees it
  if (connection < 0 || !tcp_.IsOpen(rank)) return;
  tcp_.Close(connection);
  client_->OnClosed(connection, rank, reason);
}

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS
