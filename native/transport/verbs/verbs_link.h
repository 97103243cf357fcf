// The reliable connected queue pair to one member.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_LINK_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_LINK_H_

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "base/futex_lock.h"
#include "transport/verbs/verbs_device.h"

#if PAGEMESH_HAS_VERBS

namespace pagemesh {

// What the two ends tell each other over the authenticated control connection.
struct VerbsOffer {
  uint32_t qp_number;
  uint32_t packet_number;
  uint32_t mtu;
  uint32_t receive_depth;
  uint8_t gid[16];
};
static_assert(sizeof(VerbsOffer) == 32, "as it travels");

// Records go by inline SEND; a page goes by RDMA WRITE into the receiver's frame, followed by its
// record on the same queue pair. Every record carries, as immediate data, how many receive buffers
// its sender has posted again since the last one: a record is posted only when a buffer waits for
// it, so receiver-not-ready cannot happen.
class VerbsLink {
 public:
  static constexpr uint32_t kReceiveDepth = 256;
  static constexpr uint32_t kSendDepth = 512;
  // Completions that this link can cause at a time: what the completion queue must hold for it.
  static constexpr int kMaxCompletions = kReceiveDepth + kSendDepth;

  VerbsLink(VerbsDevice* device, int rank);
  ~VerbsLink();
  VerbsLink(const VerbsLink&) = delete;
  VerbsLink& operator=(const VerbsLink&) = delete;

  // Engine thread, in this order; false with errno set.
  bool Prepare(VerbsOffer* mine);
  bool Connect(const VerbsOffer& theirs);

  int rank() const { return rank_; }
  uint32_t qp_number() const { return qp_->qp_num; }

  // Sends now or keeps it for later; `mr` and `remote` are given if `page` is. The page's bytes
  // must stay until they are delivered, which the protocol sees to. Engine thread. 0 or errno.
  int Send(const Record& record, const uint8_t* page, const ibv_mr* mr, RemoteFrame remote);
  // Any thread, in signal handlers too. False: nothing was sent.
  bool TrySend(const Record& record);

  // What completed. OnReceived gives the record; Reposted must follow once it is used. Engine.
  const Record& Received(const ibv_wc& completion);
  int Repost(const ibv_wc& completion);
  void OnSent(const ibv_wc& completion);
  // Sends what was kept, and buffers' worth of news if much is owed. 0 or errno.
  int Progress();
  // Asks for a completion of all that was posted.
  void RequestCompletion();
  bool idle() const { return unfinished_.load() == 0 && backlog_.empty(); }
  static bool IsReceive(uint64_t work_id) { return (work_id & kSendMark) == 0; }
  static uint32_t RankOf(uint64_t work_id) { return static_cast<uint32_t>(work_id >> 32) & 0xff; }

 private:
  static constexpr uint64_t kSendMark = 1ULL << 63;
  static constexpr uint32_t kReserved = 8;      // buffers at the peer for news of credit alone
  static constexpr uint32_t kSignalEvery = 32;  // work requests between two completions
  struct Kept {
    Record record;
    const uint8_t* page;
    const ibv_mr* mr;
    RemoteFrame remote;
  };

  int PostReceive(uint32_t index);
  bool MayPostLocked(uint32_t work_requests) const;
  int PostLocked(const Record* record, const uint8_t* page, const ibv_mr* mr, RemoteFrame remote);

  VerbsDevice* const device_;
  const int rank_;
  ibv_qp* qp_ = nullptr;
  uint32_t packet_number_ = 0;   // of the first packet sent
  std::vector<Record> buffers_;  // one for each posted receive
  ibv_mr* buffers_mr_ = nullptr;

  FutexLock send_lock_;                  // engine and faulting threads
  uint32_t credit_ = 0;                  // send_lock_: buffers that wait at the peer
  std::atomic<uint32_t> unfinished_{0};  // work requests whose completion is not seen
  uint32_t since_signal_ = 0;            // send_lock_
  std::atomic<uint32_t> owed_{0};        // buffers posted again that the peer does not know of
  std::deque<Kept> backlog_;             // engine thread; while it is not empty nobody overtakes
  std::atomic<bool> has_backlog_{false};
};

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_LINK_H_
