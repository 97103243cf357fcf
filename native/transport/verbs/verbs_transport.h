// Pages by RDMA: one queue pair for each pair of members, set up over the authenticated TCP
// connection, which stays for blobs, for members without a device, and to notice that one is gone.
#ifndef PAGEMESH_TRANSPORT_VERBS_VERBS_TRANSPORT_H_
#define PAGEMESH_TRANSPORT_VERBS_VERBS_TRANSPORT_H_

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "transport/tcp/tcp_transport.h"
#include "transport/transport.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_frames.h"
#include "transport/verbs/verbs_link.h"
#include "transport/verbs/verbs_words.h"

#if PAGEMESH_HAS_VERBS

namespace pagemesh {

class VerbsTransport final : public Transport {
 public:
  VerbsTransport(int epoll_fd, TransportClient* client);
  ~VerbsTransport() override;

  int Listen(const char* host, uint16_t port) override { return tcp_.Listen(host, port); }
  int Connect(const char* host, uint16_t port) override { return tcp_.Connect(host, port); }
  bool Bind(int connection, int rank) override;
  void Close(int connection) override;
  void CloseAll() override;
  bool IsOpen(int rank) const override { return tcp_.IsOpen(rank); }
  void Queue(int rank, const Record* record, const uint8_t* payload) override;
  void QueueTo(int connection, const Record* record, const uint8_t* payload) override {
    tcp_.QueueTo(connection, record, payload);
  }
  void Flush() override;
  bool TrySend(int rank, const Record& record, uint32_t slot) override;
  bool TrySendArrival(int rank, const Record& record, uint32_t which) override;
  uint32_t TrySendMany(int rank, const Record* records, uint32_t count) override {
    return device_ == nullptr ? tcp_.TrySendMany(rank, records, count)
                              : Transport::TrySendMany(rank, records, count);
  }
  bool TakesRuns(int rank) const override { return LinkTo(rank) == nullptr; }
  // Whoever has a device looks at that, and at no connection.
  bool Polls() const override { return device_ != nullptr || tcp_.Polls(); }
  bool Spins() const override { return device_ != nullptr || tcp_.Spins(); }
  bool MayAnswer(int rank) const override {
    return device_ == nullptr ? tcp_.MayAnswer(rank) : LinkTo(rank) != nullptr;
  }
  bool BeginLooking(int rank) override { return device_ == nullptr && tcp_.BeginLooking(rank); }
  void EndLooking(int rank) override { tcp_.EndLooking(rank); }
  bool PollAnswers() override;
  bool WatchAnswers() override;
  bool Poll() override;
  void Arm(bool every_answer) override;
  void OnReady(uint32_t token, uint32_t events) override;
  bool Resume() override;

  bool OpenLinks(const RdmaAddress& at, int rank, std::string* what) override;
  bool OfferLink(LinkWay way, int rank, std::vector<uint8_t>* offer) override;
  bool AcceptLink(LinkWay way, int rank, const std::vector<uint8_t>& offer) override;
  bool ProbeLink(LinkWay way, int rank) override;
  void UseLink(LinkWay way, int rank) override;
  void DropLink(LinkWay way, int rank) override;
  bool AdmitRegion(size_t bytes) override;
  void ForgetRegion(uint32_t region) override;
  bool ShareWords(uint32_t region, uint8_t* base, size_t length, WordsKey* key) override;
  void ChangeWord(int rank, const WordChange& change) override;
  uint64_t LinkRecords(LinkWay way) const override {
    return way == LinkWay::kVerbs ? link_records_.load() : 0;
  }

 private:
  // How TCP's client calls reach ours: TCP may close a connection while records that came over the
  // link before are still to be handed over.
  class TcpClient final : public TransportClient {
   public:
    explicit TcpClient(VerbsTransport* owner) : owner_(owner) {}
    uint8_t* FrameFor(int rank, const Record& record, size_t* length) override;
    bool OnRecord(int connection, int rank, const Record& record, const uint8_t* blob) override;
    void OnOpened(int connection) override;
    void OnAccepted(int connection) override;
    void OnClosed(int connection, int rank, uint32_t reason) override;
    bool AnswerAtOnce(int, const Record&, Record*, const uint8_t**) override { return false; }
    bool TakeAnswer(int rank, const Record& record) override;
    bool ExpectsAnswer(int rank, const Record& record, uint8_t** frame) override;
    bool DescribeSlot(uint32_t, uint32_t*, uint32_t*) override { return false; }
    bool DescribeRegion(uint32_t region, RegionMemory* memory) override;
    int HomeOf(uint32_t region, uint32_t page) override;

   private:
    VerbsTransport* const owner_;
  };

  VerbsLink* LinkTo(int rank) const;
  void AddKeys(Record* record);
  uint32_t TakeSlot(int rank, const RegionMemory& memory, const Record& record);
  void KeepKeys(int from, const Record& record);
  void QueuePage(VerbsLink* link, const Record& record, const uint8_t* payload);
  bool PollCompletions();
  bool Fetch();
  void ProgressAll();
  bool HandleCompletion(const ibv_wc& completion);
  void TakeDeviceEvents();
  bool Deliver(VerbsLink* link, const ibv_wc& completion);
  bool Decode(const VerbsLink& link, const ibv_wc& completion, Record* record) const;
  bool AnswersLocked(bool all);
  bool TakeLocked(const ibv_wc& completion);
  void KeepLocked(const ibv_wc& completion);
  void Break(int rank, uint32_t reason);
  void EndLink(int rank);
  void EndProbe(VerbsLink* link, uint32_t reason);
  bool LinkToSelf();
  void ProgressWords();

  static constexpr int kPollBatch = 32;
  static constexpr int kThreadPollBatch = 4;

  const int epoll_fd_;
  TransportClient* const client_;
  TcpClient tcp_client_;
  TcpTransport tcp_;
  int rank_ = 0;
  size_t admitted_bytes_ = 0;            // of regions, all of which may come to be registered
  std::unique_ptr<VerbsDevice> device_;  // outlives the links
  std::unique_ptr<VerbsWords> words_;    // nullptr until words are shared
  // That to this member itself is for words alone, and made when some are shared.
  std::unique_ptr<VerbsLink> links_[kMaxMembers];
  bool linked_to_self_ = false;
  std::atomic<VerbsLink*> in_use_[kMaxMembers] = {};  // what records go over
  int connections_[kMaxMembers];                      // TCP, by rank; -1 if none
  bool broken_[kMaxMembers] = {};
  bool probing_[kMaxMembers] = {};  // the probe of the link is under way
  RemoteFrames frames_;
  std::deque<Record> tcp_records_;  // what TCP was given pointers to; until Flush
  std::atomic<uint64_t> link_records_{0};

  // Whoever takes completions out of the queue holds the lock: the engine or a faulting thread.
  // They wait in a ring for the engine, who alone takes them out of that. It is as large as the
  // completion queue, so it never overflows.
  FutexLock receive_lock_;
  std::vector<ibv_wc> ring_;
  std::atomic<size_t> ring_tail_{0};  // receive_lock_
  std::atomic<size_t> ring_head_{0};  // engine thread
};

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS

#endif  // PAGEMESH_TRANSPORT_VERBS_VERBS_TRANSPORT_H_
