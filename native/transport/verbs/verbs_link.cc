#include "transport/verbs/verbs_link.h"

#if PAGEMESH_HAS_VERBS

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <algorithm>

#include "base/check.h"

namespace pagemesh {
namespace {

constexpr uint8_t kRetries = 6;   // rxe takes 7 as for ever
constexpr uint8_t kTimeout = 16;  // 4.096 us * 2^16: 268 ms a try, less than 2 s in all
constexpr uint8_t kHopLimit = 64;
constexpr uint32_t kPacketNumberMask = 0xffffff;  // queue pairs are numbered by 24 bits too
constexpr uint32_t kFirstQpNumber = 2;            // 0 and 1 are the device's own
constexpr int kLockTries =
    200;  // of a thread that faults, before it leaves the sending to the engine

constexpr uint32_t kAnswerBit = 1U << 31;
constexpr uint32_t kExclusiveBit = 1U << 30;
constexpr uint32_t kViewShift = VerbsImmediate::kCreditBits;
constexpr uint32_t kSlotShift = kViewShift + VerbsImmediate::kViewBits;
static_assert(kSlotShift + VerbsImmediate::kSlotBits <= 30, "everything fits 32 bits");

constexpr uint32_t Mask(uint32_t bits) { return (1U << bits) - 1; }

}  // namespace

uint32_t VerbsImmediate::Encode() const {
  const uint32_t about = is_answer
                             ? kAnswerBit | (exclusive ? kExclusiveBit : 0) | (slot << kSlotShift) |
                                   ((view & Mask(kViewBits)) << kViewShift)
                             : 0;
  return htonl(about | credit);
}

VerbsImmediate VerbsImmediate::Decode(uint32_t network_order) {
  const uint32_t value = ntohl(network_order);
  VerbsImmediate immediate;
  immediate.is_answer = (value & kAnswerBit) != 0;
  immediate.exclusive = (value & kExclusiveBit) != 0;
  immediate.slot = (value >> kSlotShift) & Mask(kSlotBits);
  immediate.view = (value >> kViewShift) & Mask(kViewBits);
  immediate.credit = value & Mask(kCreditBits);
  return immediate;
}

// Work requests that one call posts, in arrays of the caller's.
class VerbsLink::Chain {
 public:
  Chain(ibv_send_wr* requests, ibv_sge* pieces, uint32_t capacity)
      : requests_(requests), pieces_(pieces), capacity_(capacity) {}

  bool has_room() const { return count_ + kMostPerRecord <= capacity_; }
  uint32_t count() const { return count_; }
  ibv_send_wr* first() { return count_ == 0 ? nullptr : requests_; }

  ibv_send_wr* Add(const void* bytes, uint32_t length, uint32_t lkey) {
    ibv_sge& piece = pieces_[count_];
    piece.addr = reinterpret_cast<uintptr_t>(bytes);
    piece.length = length;
    piece.lkey = lkey;
    ibv_send_wr& request = requests_[count_];
    request = {};
    request.sg_list = &piece;
    request.num_sge = length == 0 ? 0 : 1;
    if (count_ > 0) requests_[count_ - 1].next = &request;
    count_++;
    return &request;
  }

 private:
  ibv_send_wr* const requests_;
  ibv_sge* const pieces_;
  const uint32_t capacity_;
  uint32_t count_ = 0;
};

VerbsLink::VerbsLink(VerbsDevice* device, int rank)
    : device_(device), rank_(rank), buffers_(kReceiveDepth) {}

VerbsLink::~VerbsLink() {
  if (qp_ != nullptr) device_->library().destroy_qp(qp_);
  if (buffers_mr_ != nullptr) device_->library().dereg_mr(buffers_mr_);
}

bool VerbsLink::Prepare(VerbsOffer* mine) {
  const VerbsLibrary& verbs = device_->library();
  buffers_mr_ = verbs.reg_mr(device_->pd(), buffers_.data(), buffers_.size() * sizeof(Record),
                             IBV_ACCESS_LOCAL_WRITE);
  if (buffers_mr_ == nullptr) return false;
  ibv_qp_init_attr attributes = {};
  attributes.send_cq = device_->cq();
  attributes.recv_cq = device_->cq();
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap.max_send_wr = kSendDepth;
  attributes.cap.max_recv_wr = kReceiveDepth;
  attributes.cap.max_send_sge = 1;
  attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = sizeof(Record);
  qp_ = verbs.create_qp(device_->pd(), &attributes);
  if (qp_ == nullptr) return false;
  ibv_qp_attr init = {};
  init.qp_state = IBV_QPS_INIT;
  init.port_num = device_->port().port;
  init.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  if (device_->has_atomics()) init.qp_access_flags |= IBV_ACCESS_REMOTE_ATOMIC;
  const int failed = verbs.modify_qp(
      qp_, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (failed != 0) {
    errno = failed;
    return false;
  }
  for (uint32_t index = 0; index < kReceiveDepth; index++) {
    released_[released_count_++] = index;
    errno = released_count_ == kReceiveBatch ? PostReceives() : 0;
    if (errno != 0) return false;
  }
  owed_.store(0);  // the offer tells of these
  if (getrandom(&mine->packet_number, sizeof(mine->packet_number), 0) !=
      sizeof(mine->packet_number)) {
    return false;
  }
  mine->packet_number &= kPacketNumberMask;
  mine->qp_number = qp_->qp_num;
  mine->mtu = static_cast<uint32_t>(device_->port().mtu);
  mine->receive_depth = kReceiveDepth;
  mine->atomics_in = device_->max_atomics_in();
  memcpy(mine->gid, device_->port().gid.raw, sizeof(mine->gid));
  packet_number_ = mine->packet_number;
  return true;
}

bool VerbsLink::Connect(const VerbsOffer& theirs) {
  const VerbsLibrary& verbs = device_->library();
  if (theirs.mtu < IBV_MTU_256 || theirs.mtu > IBV_MTU_4096 ||
      theirs.receive_depth <= 2 * kReserved || theirs.receive_depth > kMaxOfferedDepth ||
      theirs.qp_number < kFirstQpNumber || theirs.qp_number > kPacketNumberMask ||
      theirs.packet_number > kPacketNumberMask) {
    errno = EPROTO;
    return false;
  }
  ibv_qp_attr receive = {};
  receive.qp_state = IBV_QPS_RTR;
  receive.path_mtu =
      static_cast<ibv_mtu>(std::min(theirs.mtu, static_cast<uint32_t>(device_->port().mtu)));
  receive.dest_qp_num = theirs.qp_number;
  receive.rq_psn = theirs.packet_number;
  receive.max_dest_rd_atomic = static_cast<uint8_t>(device_->max_atomics_in());
  receive.min_rnr_timer = 1;
  receive.ah_attr.is_global = 1;
  memcpy(receive.ah_attr.grh.dgid.raw, theirs.gid, sizeof(theirs.gid));
  receive.ah_attr.grh.sgid_index = static_cast<uint8_t>(device_->port().gid_index);
  receive.ah_attr.grh.hop_limit = kHopLimit;
  receive.ah_attr.port_num = device_->port().port;
  int failed =
      verbs.modify_qp(qp_, &receive,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (failed == 0) {
    ibv_qp_attr send = {};
    send.qp_state = IBV_QPS_RTS;
    send.sq_psn = packet_number_;
    send.timeout = kTimeout;
    send.retry_cnt = kRetries;
    send.rnr_retry = 0;  // credit makes it impossible; if it happens it must be seen
    send.max_rd_atomic =
        static_cast<uint8_t>(std::min(theirs.atomics_in, device_->max_atomics_out()));
    failed = verbs.modify_qp(qp_, &send,
                             IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                 IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  }
  max_credit_ = theirs.receive_depth - kReserved;
  credit_ = max_credit_;
  errno = failed;
  return failed == 0;
}

void VerbsLink::End() {
  ended_ = true;
  ibv_qp_attr attributes = {};
  attributes.qp_state = IBV_QPS_ERR;
  // Fails only where the queue pair is of no use any more: then the peer cannot write either.
  if (qp_ != nullptr) device_->library().modify_qp(qp_, &attributes, IBV_QP_STATE);
}

int VerbsLink::PostReceives() {
  ibv_sge pieces[kReceiveBatch];
  ibv_recv_wr requests[kReceiveBatch];
  const uint32_t count = released_count_;
  if (count == 0) return receive_failed_;
  for (uint32_t i = 0; i < count; i++) {
    pieces[i].addr = reinterpret_cast<uintptr_t>(&buffers_[released_[i]]);
    pieces[i].length = sizeof(Record);
    pieces[i].lkey = buffers_mr_->lkey;
    requests[i] = {};
    requests[i].wr_id = (static_cast<uint64_t>(rank_) << 32) | released_[i];
    requests[i].sg_list = &pieces[i];
    requests[i].num_sge = 1;
    requests[i].next = i + 1 < count ? &requests[i + 1] : nullptr;
  }
  const uint32_t owed = count - released_unowed_;
  released_count_ = released_unowed_ = 0;
  ibv_recv_wr* bad = nullptr;
  const int failed = ibv_post_recv(qp_, requests, &bad);
  if (failed == 0) owed_.fetch_add(owed);
  if (failed != 0) receive_failed_ = failed;
  return receive_failed_;
}

bool VerbsLink::MayPostLocked(uint32_t work_requests) const {
  return credit_.load() > 0 && unfinished_.load() + work_requests <= kSendDepth;
}

// `record` may be nullptr: then only the news of credit goes, from the peer's reserve.
void VerbsLink::AddLocked(Chain* chain, const Record* record, const Page& page, uint32_t slot,
                          bool signal) {
  VerbsImmediate immediate;
  immediate.credit = owed_.exchange(0);
  ibv_send_wr* last = nullptr;
  if (page.bytes != nullptr) {
    last = chain->Add(page.bytes, record->payload_bytes, page.lkey);
    last->opcode = IBV_WR_RDMA_WRITE;
    last->wr.rdma.remote_addr = page.remote.address;
    last->wr.rdma.rkey = page.remote.rkey;
    last->wr_id = kSendMark | (static_cast<uint64_t>(rank_) << 32);
    since_signal_++;
  }
  if (page.bytes != nullptr && slot != RemoteFrames::kNoSlot) {
    last->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    immediate.is_answer = true;
    immediate.exclusive = record->kind == kKindDataExclusive;
    immediate.slot = slot;
    immediate.view = record->view;
  } else {
    last = chain->Add(record, record == nullptr ? 0 : sizeof(Record), 0);
    last->opcode = IBV_WR_SEND_WITH_IMM;
    last->send_flags = IBV_SEND_INLINE;
    if (slot == RemoteFrames::kNoSlot) last->send_flags |= IBV_SEND_SOLICITED;
    since_signal_++;
  }
  last->imm_data = immediate.Encode();
  last->wr_id = kSendMark | (static_cast<uint64_t>(rank_) << 32);
  if (record != nullptr) credit_.fetch_sub(1);
  if (!signal && since_signal_ < kSignalEvery) return;
  // One completion stands for all work requests up to it.
  last->send_flags |= IBV_SEND_SIGNALED;
  last->wr_id |= since_signal_;
  since_signal_ = 0;
}

int VerbsLink::PostLocked(Chain* chain) {
  if (chain->count() == 0) return 0;
  unfinished_.fetch_add(chain->count());
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp_, chain->first(), &bad);
}

int VerbsLink::PostOneLocked(const Record* record, bool signal) {
  ibv_send_wr request;
  ibv_sge piece;
  Chain chain(&request, &piece, 1);
  AddLocked(&chain, record, {}, RemoteFrames::kNoSlot, signal);
  return PostLocked(&chain);
}

void VerbsLink::Queue(const Record& record, const Page& page, uint32_t slot) {
  backlog_.push_back({record, page, slot});
}

bool VerbsLink::TrySend(const Record& record) {
  for (int tries = 0; !send_lock_.TryLock(); tries++) {
    if (tries == kLockTries) return false;
  }
  bool sent = false;
  if (!has_backlog_.load() && MayPostLocked(1)) {
    sent = PostOneLocked(&record, false) == 0;
  }
  send_lock_.Unlock();
  return sent;
}

int VerbsLink::Progress() {
  if (idle_backlog() && owed_.load() < kReceiveDepth / 4) return 0;
  FutexGuard guard(send_lock_);
  int failed = 0;
  while (failed == 0 && !idle_backlog() && MayPostLocked(kMostPerRecord)) {
    failed = PostBacklogLocked();
  }
  if (idle_backlog()) {
    backlog_.clear();
    backlog_at_ = 0;
  }
  has_backlog_.store(!idle_backlog());
  // At most one in flight for each quarter of the buffers, so the reserve always suffices.
  const bool much = owed_.load() >= kReceiveDepth / 4 && unfinished_.load() < kSendDepth;
  return failed == 0 && much ? PostOneLocked(nullptr, false) : failed;
}

int VerbsLink::PostBacklogLocked() {
  ibv_send_wr requests[kSendBatch];
  ibv_sge pieces[kSendBatch];
  Chain chain(requests, pieces, kSendBatch);
  while (!idle_backlog() && chain.has_room() && MayPostLocked(chain.count() + kMostPerRecord)) {
    const Kept& kept = backlog_[backlog_at_++];
    AddLocked(&chain, &kept.record, kept.page, kept.slot, false);
  }
  return PostLocked(&chain);  // inline data is copied here
}

int VerbsLink::PostWord(const WordChange& change, ibv_sge* result, uint32_t slot) {
  FutexGuard guard(send_lock_);
  const bool full = unfinished_.load() >= kSendDepth;
  word_waits_.store(full);
  if (full) return EAGAIN;
  ibv_send_wr request = {};
  // Its completion stands for all work requests up to it, as that of a record does.
  request.wr_id = kSendMark | kWordMark | (static_cast<uint64_t>(slot) << kWordSlotShift) |
                  (static_cast<uint64_t>(rank_) << 32) | (since_signal_ + 1);
  request.opcode = change.compares ? IBV_WR_ATOMIC_CMP_AND_SWP : IBV_WR_ATOMIC_FETCH_AND_ADD;
  request.send_flags = IBV_SEND_SIGNALED;
  request.sg_list = result;
  request.num_sge = 1;
  request.wr.atomic.remote_addr = change.word.address;
  request.wr.atomic.rkey = change.word.rkey;
  request.wr.atomic.compare_add = change.compares ? change.expected : change.operand;
  request.wr.atomic.swap = change.operand;
  since_signal_ = 0;
  unfinished_.fetch_add(1);
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp_, &request, &bad);
}

const Record& VerbsLink::Received(const ibv_wc& completion) const {
  const uint32_t index = static_cast<uint32_t>(completion.wr_id);
  PM_CHECK_STATE(index < kReceiveDepth, index, rank_);
  return buffers_[index];
}

bool VerbsLink::HasGoodCredit(const ibv_wc& completion) const {
  // What is taken from credit_ meanwhile only makes more room.
  return credit_.load() + VerbsImmediate::Decode(completion.imm_data).credit <= max_credit_;
}

int VerbsLink::Release(const ibv_wc& completion) {
  credit_.fetch_add(VerbsImmediate::Decode(completion.imm_data).credit);
  // News of credit alone came out of the reserve, and is not owed.
  released_unowed_ += completion.byte_len == 0;
  released_[released_count_++] = static_cast<uint32_t>(completion.wr_id);
  return released_count_ < kReceiveBatch ? 0 : PostReceives();
}

void VerbsLink::OnSent(const ibv_wc& completion) {
  unfinished_.fetch_sub(static_cast<uint32_t>(completion.wr_id));
}

int VerbsLink::Probe() {
  FutexGuard guard(send_lock_);
  return PostOneLocked(nullptr, true);
}

void VerbsLink::RequestCompletion() {
  FutexGuard guard(send_lock_);
  if (unfinished_.load() == 0 || unfinished_.load() >= kSendDepth) return;
  PostOneLocked(nullptr, true);
}

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS
