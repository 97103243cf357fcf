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

constexpr uint8_t kRetries = 7;
constexpr uint8_t kTimeout = 14;  // 4.096 us * 2^14: 67 ms a try, half a second in all
constexpr uint8_t kHopLimit = 64;
constexpr uint32_t kPacketNumberMask = 0xffffff;

}  // namespace

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
  const int failed = verbs.modify_qp(
      qp_, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (failed != 0) {
    errno = failed;
    return false;
  }
  for (uint32_t index = 0; index < kReceiveDepth; index++) {
    errno = PostReceive(index);
    if (errno != 0) return false;
  }
  if (getrandom(&mine->packet_number, sizeof(mine->packet_number), 0) !=
      sizeof(mine->packet_number)) {
    return false;
  }
  mine->packet_number &= kPacketNumberMask;
  mine->qp_number = qp_->qp_num;
  mine->mtu = static_cast<uint32_t>(device_->port().mtu);
  mine->receive_depth = kReceiveDepth;
  memcpy(mine->gid, device_->port().gid.raw, sizeof(mine->gid));
  packet_number_ = mine->packet_number;
  return true;
}

bool VerbsLink::Connect(const VerbsOffer& theirs) {
  const VerbsLibrary& verbs = device_->library();
  if (theirs.mtu < IBV_MTU_256 || theirs.mtu > IBV_MTU_4096 ||
      theirs.receive_depth <= 2 * kReserved) {
    errno = EPROTO;
    return false;
  }
  ibv_qp_attr receive = {};
  receive.qp_state = IBV_QPS_RTR;
  receive.path_mtu =
      static_cast<ibv_mtu>(std::min(theirs.mtu, static_cast<uint32_t>(device_->port().mtu)));
  receive.dest_qp_num = theirs.qp_number;
  receive.rq_psn = theirs.packet_number & kPacketNumberMask;
  receive.max_dest_rd_atomic = 1;
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
    send.max_rd_atomic = 1;
    failed = verbs.modify_qp(qp_, &send,
                             IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                 IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  }
  credit_ = theirs.receive_depth - kReserved;
  errno = failed;
  return failed == 0;
}

int VerbsLink::PostReceive(uint32_t index) {
  ibv_sge piece = {};
  piece.addr = reinterpret_cast<uintptr_t>(&buffers_[index]);
  piece.length = sizeof(Record);
  piece.lkey = buffers_mr_->lkey;
  ibv_recv_wr request = {};
  request.wr_id = (static_cast<uint64_t>(rank_) << 32) | index;
  request.sg_list = &piece;
  request.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  return ibv_post_recv(qp_, &request, &bad);
}

bool VerbsLink::MayPostLocked(uint32_t work_requests) const {
  return credit_ > 0 && unfinished_.load() + work_requests <= kSendDepth;
}

// `record` may be nullptr: then only the news of credit goes, from the peer's reserve.
int VerbsLink::PostLocked(const Record* record, const uint8_t* page, const ibv_mr* mr,
                          RemoteFrame remote) {
  ibv_sge page_piece = {};
  ibv_send_wr write = {}, send = {};
  uint32_t count = 1;
  if (page != nullptr) {
    page_piece.addr = reinterpret_cast<uintptr_t>(page);
    page_piece.length = record->payload_bytes;
    page_piece.lkey = mr->lkey;
    write.opcode = IBV_WR_RDMA_WRITE;
    write.sg_list = &page_piece;
    write.num_sge = 1;
    write.wr.rdma.remote_addr = remote.address;
    write.wr.rdma.rkey = remote.rkey;
    write.next = &send;
    count = 2;
  }
  ibv_sge record_piece = {};
  record_piece.addr = reinterpret_cast<uintptr_t>(record);
  record_piece.length = sizeof(Record);
  const uint32_t news = owed_.exchange(0);
  send.opcode = IBV_WR_SEND_WITH_IMM;
  send.imm_data = htonl(news);
  send.sg_list = &record_piece;
  send.num_sge = record == nullptr ? 0 : 1;
  send.send_flags = IBV_SEND_INLINE;
  since_signal_ += count;
  if (since_signal_ >= kSignalEvery) {
    // One completion stands for all work requests up to it.
    send.send_flags |= IBV_SEND_SIGNALED;
    send.wr_id = kSendMark | (static_cast<uint64_t>(rank_) << 32) | since_signal_;
    since_signal_ = 0;
  } else {
    send.wr_id = kSendMark | (static_cast<uint64_t>(rank_) << 32);
  }
  write.wr_id = kSendMark | (static_cast<uint64_t>(rank_) << 32);
  unfinished_.fetch_add(count);
  if (record != nullptr) credit_--;
  ibv_send_wr* bad = nullptr;
  return ibv_post_send(qp_, page != nullptr ? &write : &send, &bad);
}

int VerbsLink::Send(const Record& record, const uint8_t* page, const ibv_mr* mr,
                    RemoteFrame remote) {
  FutexGuard guard(send_lock_);
  if (backlog_.empty() && MayPostLocked(2)) return PostLocked(&record, page, mr, remote);
  backlog_.push_back({record, page, mr, remote});
  has_backlog_.store(true);
  return 0;
}

bool VerbsLink::TrySend(const Record& record) {
  if (!send_lock_.TryLock()) return false;
  const bool may = !has_backlog_.load() && MayPostLocked(1);
  const bool sent = may && PostLocked(&record, nullptr, nullptr, {}) == 0;
  send_lock_.Unlock();
  return sent;
}

const Record& VerbsLink::Received(const ibv_wc& completion) {
  const uint32_t index = static_cast<uint32_t>(completion.wr_id);
  PM_CHECK_STATE(index < kReceiveDepth, index, rank_);
  return buffers_[index];
}

int VerbsLink::Repost(const ibv_wc& completion) {
  {
    FutexGuard guard(send_lock_);
    credit_ += ntohl(completion.imm_data);
  }
  // News of credit alone came out of the reserve, and is not owed.
  if (completion.byte_len == sizeof(Record)) owed_.fetch_add(1);
  return PostReceive(static_cast<uint32_t>(completion.wr_id));
}

void VerbsLink::OnSent(const ibv_wc& completion) {
  unfinished_.fetch_sub(static_cast<uint32_t>(completion.wr_id));
}

void VerbsLink::RequestCompletion() {
  FutexGuard guard(send_lock_);
  if (unfinished_.load() == 0 || unfinished_.load() >= kSendDepth) return;
  since_signal_ += kSignalEvery;
  unfinished_.fetch_add(kSignalEvery);  // so that what the completion takes off is right
  PostLocked(nullptr, nullptr, nullptr, {});
}

int VerbsLink::Progress() {
  FutexGuard guard(send_lock_);
  while (!backlog_.empty() && MayPostLocked(2)) {
    const Kept& kept = backlog_.front();
    const int failed = PostLocked(&kept.record, kept.page, kept.mr, kept.remote);
    if (failed != 0) return failed;
    backlog_.pop_front();
  }
  has_backlog_.store(!backlog_.empty());
  // At most one in flight for each quarter of the buffers, so the reserve always suffices.
  const bool much = owed_.load() >= kReceiveDepth / 4;
  if (much && unfinished_.load() < kSendDepth) return PostLocked(nullptr, nullptr, nullptr, {});
  return 0;
}

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS
