// The reliable connected queue pair to one member.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_LINK_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_LINK_H_

#include <atomic>
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
  uint32_t atomics_in;  // how many RDMA atomics and READs it takes at a time
  uint8_t gid[16];
};
static_assert(sizeof(VerbsOffer) == 36, "as it travels");

// The immediate data of every message. An answer is a page by RDMA WRITE for a thread that looks
// for it itself: the slot says which, so no record is needed, and nobody is woken.
struct VerbsImmediate {
  bool is_answer = false;
  bool exclusive = false;  // answers: DataExclusive, else Data
  uint32_t slot = 0;       // answers
  uint32_t view = 0;       // answers: the sender's view
  uint32_t credit = 0;     // receive buffers that the sender has posted again since the last one

  static constexpr uint32_t kSlotBits = 11;
  static constexpr uint32_t kViewBits = 6;
  static constexpr uint32_t kCreditBits = 9;

  uint32_t Encode() const;  // in network order
  static VerbsImmediate Decode(uint32_t network_order);
};

// Records go by inline SEND; a page goes by RDMA WRITE into the receiver's frame, followed by its
// record on the same queue pair, or with immediate data alone if it is an answer. All of them carry
// news of credit: one is posted only when a receive buffer waits for it, so receiver-not-ready
// cannot happen.
class VerbsLink {
 public:
  static constexpr uint32_t kReceiveDepth = 256;
  static constexpr uint32_t kSendDepth = 512;
  // Completions that this link can cause at a time: what the completion queue must hold for it.
  static constexpr int kMaxCompletions = kReceiveDepth + kSendDepth;

  // A page on its way out: where its bytes are, and where they go.
  struct Page {
    const uint8_t* bytes = nullptr;  // stay as they are until delivered, which the protocol sees to
    uint32_t lkey = 0;
    RemoteFrame remote;
  };

  VerbsLink(VerbsDevice* device, int rank);
  ~VerbsLink();
  VerbsLink(const VerbsLink&) = delete;
  VerbsLink& operator=(const VerbsLink&) = delete;

  // Engine thread, in this order; false with errno set.
  bool Prepare(VerbsOffer* mine);
  bool Connect(const VerbsOffer& theirs);

  // Posts an empty message; how it completes tells whether the peer is there. Once, when both are
  // connected and before anything else is sent. 0 or errno. Engine thread.
  int Probe();

  // Ends the queue pair: the peer can write no more once this returns, and what was posted is
  // flushed. The object must stay until the queue pair may go. Any number of times. Engine thread.
  void End();

  bool ended() const { return ended_; }

  int rank() const { return rank_; }
  uint32_t qp_number() const { return qp_->qp_num; }

  // Keeps it for Progress. `page.bytes` is nullptr for a record alone. With a slot, the answer that
  // the record is wakes nobody. Engine thread.
  void Queue(const Record& record, const Page& page, uint32_t slot);
  // Sends what was kept, as far as credit goes, and news of credit if much is owed: many in one
  // call of the device. 0 or errno. Engine thread.
  int Progress();
  // Any thread, in signal handlers too. False: nothing was sent.
  bool TrySend(const Record& record);
  // Something waits for credit or room: the engine must hear of completions of any kind.
  bool has_backlog() const { return has_backlog_.load() || word_waits_.load(); }

  // Posts an RDMA atomic; `result` is where the word as it was goes, and the completion names
  // `slot`. EAGAIN while the queue is full. Engine thread. 0 or errno.
  int PostWord(const WordChange& change, ibv_sge* result, uint32_t slot);

  // Completions. Callers hold the transport's receive lock.
  const Record& Received(const ibv_wc& completion) const;
  // Whether there can be as much credit as came with it.
  bool HasGoodCredit(const ibv_wc& completion) const;
  // The buffer is free again, and the credit that came with it, which was found good, counts. The
  // buffer is posted with others: by PostReceives, at the latest. 0 or errno.
  int Release(const ibv_wc& completion);
  // 0, or the errno of the first time that it failed.
  int PostReceives();
  void OnSent(const ibv_wc& completion);

  // Asks for a completion of all that was posted.
  void RequestCompletion();
  bool idle() const { return unfinished_.load() == 0 && idle_backlog(); }
  static bool IsReceive(uint64_t work_id) { return (work_id & kSendMark) == 0; }
  static bool IsWord(uint64_t work_id) { return (work_id & kWordMark) != 0; }
  static uint32_t WordSlotOf(uint64_t work_id) {
    return static_cast<uint32_t>(work_id >> kWordSlotShift) & 0xffff;
  }
  static uint32_t RankOf(uint64_t work_id) { return static_cast<uint32_t>(work_id >> 32) & 0xff; }

 private:
  static constexpr uint64_t kSendMark = 1ULL << 63;
  static constexpr uint64_t kWordMark = 1ULL << 62;  // a send that is an atomic
  static constexpr int kWordSlotShift = 40;
  static constexpr uint32_t kReserved = 8;  // buffers at the peer for news of credit alone
  static constexpr uint32_t kMaxOfferedDepth = 1 << 16;  // no device has so many
  static constexpr uint32_t kSignalEvery = 32;           // work requests between two completions
  static constexpr uint32_t kReceiveBatch = 16;
  static constexpr uint32_t kSendBatch = 32;
  static constexpr uint32_t kMostPerRecord = 2;  // work requests
  static_assert(kReceiveDepth < 1U << VerbsImmediate::kCreditBits, "credit fits its bits");
  struct Kept {
    Record record;
    Page page;
    uint32_t slot;
  };
  class Chain;

  bool MayPostLocked(uint32_t work_requests) const;
  bool idle_backlog() const { return backlog_at_ == backlog_.size(); }
  void AddLocked(Chain* chain, const Record* record, const Page& page, uint32_t slot, bool signal);
  int PostLocked(Chain* chain);
  int PostOneLocked(const Record* record, bool signal);
  int PostBacklogLocked();

  VerbsDevice* const device_;
  const int rank_;
  ibv_qp* qp_ = nullptr;
  bool ended_ = false;           // engine thread
  uint32_t packet_number_ = 0;   // of the first packet sent
  std::vector<Record> buffers_;  // one for each posted receive
  ibv_mr* buffers_mr_ = nullptr;

  uint32_t released_[kReceiveBatch];  // receive lock: buffers to be posted again
  uint32_t released_count_ = 0;       // receive lock
  uint32_t released_unowed_ = 0;      // receive lock: of these, how many held no record
  int receive_failed_ = 0;            // receive lock

  FutexLock send_lock_;                   // engine and faulting threads
  uint32_t max_credit_ = 0;               // buffers that the peer offered, less its reserve
  std::atomic<uint32_t> credit_{0};       // buffers that wait at the peer; taken under send_lock_
  std::atomic<uint32_t> unfinished_{0};   // work requests whose completion is not seen
  uint32_t since_signal_ = 0;             // send_lock_
  std::atomic<uint32_t> owed_{0};         // buffers posted again that the peer does not know of
  std::vector<Kept> backlog_;             // engine thread
  size_t backlog_at_ = 0;                 // what of it has been posted
  std::atomic<bool> has_backlog_{false};  // Progress left something over: nobody overtakes it
  std::atomic<bool> word_waits_{false};   // PostWord found the queue full
};

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_LINK_H_
